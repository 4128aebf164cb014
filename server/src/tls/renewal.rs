//! Certificates that are renewed while flotillad runs: their files are looked at again, and taken up.
//!
//! There is no signal and no timer. Whoever is about to use a certificate looks, at most once a second, whether its
//! files are other ones than before. What cannot be used is told once, and what was used before goes on.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use flotilla_api::client::Identity;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::TlsFiles;

/// How often files are looked at, at most. A second: two calls of the kernel, and a handshake costs a thousand.
const LOOKED_EVERY: Duration = Duration::from_secs(1);

/// What tells a file from the one before it: inode, length, and when it was written, in seconds and nanoseconds.
type Mark = Option<(u64, u64, i64, i64)>;

/// The files of a certificate, with what they were when it was read last.
#[derive(Debug)]
pub(crate) struct Watched {
    files: TlsFiles,
    seen: Mutex<(Instant, [Mark; 2])>,
}

/// The listener's own certificate as it is now.
#[derive(Debug)]
pub(super) struct Renewed {
    watched: Watched,
    now: Mutex<Arc<CertifiedKey>>,
}

impl Watched {
    /// Begins to look; what is used was read after this.
    pub(crate) fn new(files: &TlsFiles) -> Self {
        Self { files: files.clone(), seen: Mutex::new((Instant::now(), marks(files))) }
    }

    /// Returns the certificate for asking others, if it is another one than before.
    pub(crate) fn renewed_identity(&self) -> Option<Identity> {
        let identity = self.changed().then(|| self.files.identity())?;
        identity.map_err(|error| self.complain(&error)).ok()
    }

    fn changed(&self) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0.elapsed() < LOOKED_EVERY {
            return false;
        }
        // Before they are read: what is written after this is another change.
        let now = marks(&self.files);
        seen.0 = Instant::now();
        std::mem::replace(&mut seen.1, now) != now
    }

    fn complain(&self, error: &super::TlsError) {
        let certificate = self.files.certificate.display();
        tracing::warn!(
            %certificate,
            error = crate::error::chain(error),
            "the certificate was changed and cannot be used; the one before stays in use"
        );
    }
}

impl Renewed {
    pub(super) fn new(watched: Watched, now: CertifiedKey) -> Self {
        Self { watched, now: Mutex::new(Arc::new(now)) }
    }
}

impl ResolvesServerCert for Renewed {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let renewed = self.watched.changed().then(|| self.watched.files.certified());
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        match renewed {
            Some(Ok(renewed)) => {
                tracing::info!(
                    certificate = %self.watched.files.certificate.display(),
                    "a renewed certificate is in use"
                );
                *now = Arc::new(renewed);
            }
            Some(Err(error)) => self.watched.complain(&error),
            None => {}
        }
        Some(Arc::clone(&now))
    }
}

fn marks(files: &TlsFiles) -> [Mark; 2] {
    [&files.certificate, &files.key].map(|path| {
        let file = fs::metadata(path).ok()?;
        Some((file.ino(), file.len(), file.mtime(), file.mtime_nsec()))
    })
}
