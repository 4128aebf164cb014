//! The store in an etcd cluster, version 3.4 or later.
//!
//! The only place that names etcd-client, whose stubs neither retry, nor notice a silent server, nor
//! say what an error means. `endpoints` decides where a call goes and whether it goes again, `life`
//! whether a member lives, `failure` what an error means, `watching` turns a watch into whole revisions.

mod config;
mod convert;
mod endpoints;
mod failure;
mod life;
mod watching;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use etcd_client::{Error, KvClient, LeaseKeepAliveStream, LeaseKeeper, WatchOptions};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::{sleep, timeout};

pub use self::config::{EtcdConfig, EtcdTls, Pem};
use self::{
    endpoints::{Call, Endpoints, Link, Repeat},
    failure::Subject,
};
use super::{
    CALL_TIMEOUT, KeyRange, LeaseId, LeaseStatus, Operation, RangeRequest, RangeResponse, Revision, Store,
    StoreError, StoreStatus, Txn, TxnResponse, WatchStream, check,
};

/// The largest answer that is read: a million keys of 180 bytes are 250 MB. gRPC's own limit of 4 MiB is
/// less than a few thousand reports.
const RESPONSE_BYTES_MAX: usize = 512 << 20;

/// The lease that is granted for a commit, and revoked: should that fail it soon ends. Five seconds.
const UNWINDING_LEASE: Duration = Duration::from_secs(5);

/// How often etcd's backend commits what is pending: `--backend-batch-interval`, 100 ms, and twice that to be sure.
const BACKEND_COMMITS_WITHIN: Duration = Duration::from_millis(200);

/// How many reads a transaction may consist of to be sent as such. Eight: what agents, elections and single orders ask;
/// the hundred of a large order are one transaction, whose sender hardly ever goes away meanwhile.
const READS_MAX: usize = 8;

/// How often such a transaction is begun when the history is compacted between two of its reads.
const READ_TRIES: u32 = 3;

/// A store in an etcd cluster.
#[derive(Debug)]
pub struct EtcdStore {
    endpoints: Arc<Endpoints>,
    /// The stream on which each lease is renewed: one message each way instead of a new stream.
    keepers: Mutex<HashMap<LeaseId, Keeper>>,
}

#[derive(Debug)]
struct Keeper {
    link: Link,
    ttl: Duration,
    requests: LeaseKeeper,
    answers: LeaseKeepAliveStream,
}

impl EtcdStore {
    /// Returns the store that a configuration describes. Connects with the first call, and again
    /// whenever the connection is lost; the same store serves for the life of a process.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] if the configuration can never work: no endpoint, a certificate
    /// that cannot be read. That etcd is away is no error here.
    pub fn connect(config: EtcdConfig) -> Result<Self, StoreError> {
        Ok(Self { endpoints: Arc::new(Endpoints::new(config)?), keepers: Mutex::new(HashMap::new()) })
    }

    fn keepers(&self) -> std::sync::MutexGuard<'_, HashMap<LeaseId, Keeper>> {
        self.keepers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads several ranges as of one revision, the newest.
    ///
    /// Not as a transaction: etcd answers one that writes nothing under its caller's context, and where that ends
    /// meanwhile, because the caller gave up or its connection broke, the early members of 3.5 end with a panic
    /// (etcd-io/etcd#14110; seen with 3.5.1). A read that is given up harms nobody.
    async fn read_at_once(&self, gets: &[Operation]) -> Result<TxnResponse, StoreError> {
        let mut ranges = Vec::new();
        for get in gets {
            if let Operation::Get(range) = get {
                ranges.push(range.clone());
            }
        }
        let Some((first, rest)) = ranges.split_first() else {
            return Err(StoreError::Invalid("a transaction that does nothing".to_owned()));
        };
        let mut tries = 0;
        loop {
            tries += 1;
            let answer = self.range(RangeRequest::all(first.clone())).await?;
            let (revision, mut found) = (answer.revision, vec![answer.kvs]);
            let at_revision =
                |range: KeyRange| RangeRequest { revision: Some(revision), ..RangeRequest::all(range) };
            let requests: Vec<_> = rest.iter().cloned().map(at_revision).collect();
            let answers = stream::iter(requests).map(|request| self.range(request)).buffered(READS_MAX);
            match answers.map_ok(|answer| answer.kvs).try_collect::<Vec<_>>().await {
                Ok(rest) => found.extend(rest),
                // Somebody compacted in the very moment.
                Err(StoreError::Compacted { .. }) if tries < READ_TRIES => continue,
                Err(error) => return Err(error),
            }
            return Ok(TxnResponse { succeeded: true, revision, gets: found });
        }
    }

    /// Keeps the stream of a lease that was renewed for some seconds.
    fn keep(&self, lease: LeaseId, mut keeper: Keeper, ttl: i64) {
        keeper.ttl = whole_seconds(ttl);
        let mut keepers = self.keepers();
        keepers.insert(lease, keeper);
        if let Some(shortest) = keepers.values().map(|keeper| keeper.ttl).min() {
            self.endpoints.quiet.for_lease(shortest);
        }
    }

    /// Renews over the stream that is open, if there is one and it answers; at most half the time.
    async fn keep_alive_on_open_stream(&self, lease: LeaseId, limit: Duration) -> Option<i64> {
        let mut keeper = self.keepers().remove(&lease)?;
        let link = keeper.link.clone();
        let renewed = tokio::select! {
            biased;
            renewed = timeout(limit / 2, keeper.renew()) => renewed.ok().and_then(Result::ok),
            _ = link.life.gone(&link.client) => None,
        };
        let Some(ttl) = renewed else {
            self.endpoints.leave(&link);
            return None;
        };
        link.life.hear();
        if ttl > 0 {
            self.keep(lease, keeper, ttl);
        }
        Some(ttl)
    }
}

impl Keeper {
    async fn open(link: Link, lease: LeaseId) -> Result<(Self, i64), Error> {
        let (requests, answers) = link.client.lease_client().keep_alive(lease.0).await?;
        // Opening renews once, but does not say for how long.
        let mut keeper = Self { link, ttl: Duration::ZERO, requests, answers };
        let ttl = keeper.renew().await?;
        Ok((keeper, ttl))
    }

    /// Renews and waits for the answer: that a request was queued proves nothing.
    async fn renew(&mut self) -> Result<i64, Error> {
        self.requests.keep_alive().await?;
        match self.answers.message().await? {
            Some(answer) => Ok(answer.ttl()),
            None => Err(Error::Internal("etcd closed the lease's stream".into())),
        }
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        check::range(&request.range)?;
        let subject = Subject { revision: request.revision, lease: None };
        let call = Call { what: "a read", limit: CALL_TIMEOUT, repeat: Repeat::Freely, subject };
        let response = self
            .endpoints
            .call(call, |link| {
                let options = convert::get_options(&request);
                let key = request.range.start.clone();
                async move { kv(&link).get(key, Some(options)).await }
            })
            .await?;
        convert::range_response(response)
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, StoreError> {
        check::txn(&txn)?;
        let read_only = check::is_read_only(&txn);
        if read_only && txn.when.is_empty() && (1..=READS_MAX).contains(&txn.then.len()) {
            let reads = timeout(CALL_TIMEOUT, self.read_at_once(&txn.then)).await;
            let late = || StoreError::Unreachable {
                endpoints: self.endpoints.urls(),
                why: format!("several reads took longer than {CALL_TIMEOUT:?}"),
            };
            return reads.unwrap_or_else(|_| Err(late()));
        }
        let repeat = if read_only { Repeat::Freely } else { Repeat::Never };
        let subject = Subject { revision: None, lease: convert::lease_of(&txn) };
        let call = Call { what: "a transaction", limit: CALL_TIMEOUT, repeat, subject };
        let response = self
            .endpoints
            .call(call, |link| {
                let txn = convert::txn(&txn);
                async move { kv(&link).txn(txn).await }
            })
            .await?;
        convert::txn_response(response)
    }

    async fn watch(&self, range: KeyRange, from: Revision) -> Result<WatchStream, StoreError> {
        check::range(&range)?;
        // etcd reads zero as "from now on".
        let from = from.max(Revision(1));
        let subject = Subject { revision: Some(from), lease: None };
        let call = Call { what: "a watch", limit: CALL_TIMEOUT, repeat: Repeat::Freely, subject };
        let mut renewed = false;
        loop {
            let (stream, created, link) = self
                .endpoints
                .call(call, |link| {
                    let options = watch_options(&range, from);
                    let key = range.start.clone();
                    async move {
                        let mut client =
                            link.client.watch_client().max_decoding_message_size(RESPONSE_BYTES_MAX);
                        let mut stream = client.watch(key, Some(options)).await?;
                        let created = stream.message().await?;
                        let closed = || Error::WatchError("etcd closed the stream".into());
                        Ok((stream, created.ok_or_else(closed)?, link))
                    }
                })
                .await?;
            match watching::refusal(&created, from) {
                None => return Ok(watching::stream(stream, from, link, Arc::clone(&self.endpoints.quiet))),
                // etcd 3.4 calls an expired session "permission denied" here: sign in again, once.
                Some(StoreError::Unauthenticated(_)) if !renewed => {
                    renewed = true;
                    self.endpoints.forget_all();
                }
                Some(error) => return Err(error),
            }
        }
    }

    async fn lease_grant(&self, ttl: Duration) -> Result<(LeaseId, Duration), StoreError> {
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let seconds = i64::try_from(seconds.max(1)).unwrap_or(i64::MAX);
        let call = write_call("the grant of a lease", Subject::default());
        let granted = self
            .endpoints
            .call(call, |link| async move { link.client.lease_client().grant(seconds, None).await })
            .await?;
        Ok((LeaseId(granted.id()), whole_seconds(granted.ttl())))
    }

    async fn lease_keep_alive(&self, lease: LeaseId, timeout: Duration) -> Result<Duration, StoreError> {
        let deadline = tokio::time::Instant::now() + timeout;
        let gone = || StoreError::LeaseNotFound(lease);
        if let Some(ttl) = self.keep_alive_on_open_stream(lease, timeout).await {
            return if ttl > 0 { Ok(whole_seconds(ttl)) } else { Err(gone()) };
        }
        let limit = deadline.saturating_duration_since(tokio::time::Instant::now());
        let subject = Subject { revision: None, lease: Some(lease) };
        let call = Call { what: "the renewal of a lease", limit, repeat: Repeat::Freely, subject };
        let (keeper, ttl) = self.endpoints.call(call, |link| Keeper::open(link, lease)).await?;
        // An ended lease is answered with no time left, not with an error.
        if ttl <= 0 {
            return Err(gone());
        }
        self.keep(lease, keeper, ttl);
        Ok(whole_seconds(ttl))
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        drop(self.keepers().remove(&lease));
        let call = write_call("the end of a lease", Subject { revision: None, lease: Some(lease) });
        let revoked = self
            .endpoints
            .call(call, |link| async move { link.client.lease_client().revoke(lease.0).await })
            .await;
        match revoked {
            Ok(_) | Err(StoreError::LeaseNotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn lease_status(&self, lease: LeaseId) -> Result<Option<LeaseStatus>, StoreError> {
        let subject = Subject { revision: None, lease: Some(lease) };
        let call = Call { what: "a lease's status", limit: CALL_TIMEOUT, repeat: Repeat::Freely, subject };
        let status = self
            .endpoints
            .call(call, |link| async move { link.client.lease_client().time_to_live(lease.0, None).await })
            .await;
        match status {
            // etcd answers -1 for a lease that is not there.
            Ok(status) if status.ttl() >= 0 && status.granted_ttl() > 0 => Ok(Some(LeaseStatus {
                granted: whole_seconds(status.granted_ttl()),
                remaining: whole_seconds(status.ttl()),
                term: status.header().map_or(0, |header| header.raft_term()),
            })),
            Ok(_) | Err(StoreError::LeaseNotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        check::compaction(revision)?;
        let call = write_call("a compaction", Subject { revision: Some(revision), lease: None });
        self.endpoints
            .call(call, |link| async move { kv(&link).compact(revision.0, None).await })
            .await
            .map(drop)
    }

    /// etcd 3.4 copies its buffer of writes for every read and every renewal of a lease, and the copy is as long as
    /// the buffer ever was, until a commit of its backend that writes no key. A lease's grant is one.
    async fn unwind(&self) -> Result<(), StoreError> {
        if !self.status().await?.version.starts_with("etcd 3.4.") {
            return Ok(());
        }
        let (lease, _) = self.lease_grant(UNWINDING_LEASE).await?;
        sleep(BACKEND_COMMITS_WITHIN).await;
        self.lease_revoke(lease).await
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        let call = Call {
            what: "the status",
            limit: CALL_TIMEOUT,
            repeat: Repeat::Freely,
            subject: Subject::default(),
        };
        let status = self
            .endpoints
            .call(call, |link| async move { link.client.maintenance_client().status().await })
            .await?;
        Ok(StoreStatus {
            version: format!("etcd {}", status.version()),
            size_bytes: u64::try_from(status.db_size()).unwrap_or(0),
            quota_bytes: u64::try_from(status.db_size_quota()).ok().filter(|quota| *quota > 0),
            revision: convert::revision(status.header()),
        })
    }
}

const fn write_call(what: &'static str, subject: Subject) -> Call {
    Call { what, limit: CALL_TIMEOUT, repeat: Repeat::Never, subject }
}

fn kv(link: &Link) -> KvClient {
    link.client.kv_client().max_decoding_message_size(RESPONSE_BYTES_MAX)
}

fn watch_options(range: &KeyRange, from: Revision) -> WatchOptions {
    let options = WatchOptions::new().with_start_revision(from.0).with_progress_notify().with_fragment();
    match &range.end {
        None => options,
        Some(end) => options.with_range(end.as_str()),
    }
}

fn whole_seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
