//! Folders as what the kernel unpacks into memory before anything runs: cpio archives of the kind
//! "newc" (the kernel's Documentation/driver-api/early-userspace/buffer-format.rst).

use std::{
    fs,
    io::{self, Write},
    os::unix::{ffi::OsStrExt, fs::FileTypeExt, fs::MetadataExt},
    path::Path,
};

use anyhow::{Context, Result};

/// Writes the files below a folder, but for what is below `without`, as paths from the folder.
///
/// # Errors
/// Something cannot be read, or the archive not written.
pub fn write(archive: &mut impl Write, folder: &Path, without: &[&str]) -> Result<()> {
    let mut number = 0;
    append(archive, folder, Path::new(""), without, &mut number)
}

/// Ends the archive: nothing of what follows is unpacked with it.
pub fn end(archive: &mut impl Write) -> io::Result<()> {
    entry(archive, b"TRAILER!!!", [0; 9])
}

fn append(
    archive: &mut impl Write,
    root: &Path,
    below: &Path,
    without: &[&str],
    number: &mut u32,
) -> Result<()> {
    let folder = root.join(below);
    let shown = || format!("reading {}", folder.display());
    let mut names = Vec::new();
    for found in fs::read_dir(&folder).with_context(shown)? {
        names.push(found.with_context(shown)?.file_name());
    }
    // In one order everywhere, so that an archive of the same files is the same.
    names.sort();
    for name in names {
        let inner = below.join(&name);
        if without.iter().any(|path| Path::new(path) == inner) {
            continue;
        }
        let path = root.join(&inner);
        let is = fs::symlink_metadata(&path).with_context(|| format!("reading {}", path.display()))?;
        let kind = is.file_type();
        let content = if kind.is_file() {
            fs::read(&path).with_context(|| format!("reading {}", path.display()))?
        } else if kind.is_symlink() {
            fs::read_link(&path)?.as_os_str().as_bytes().to_vec()
        } else {
            Vec::new()
        };
        *number += 1;
        let device = if kind.is_block_device() || kind.is_char_device() { is.rdev() } else { 0 };
        let length = u32::try_from(content.len()).context("a file of 4 GiB or more")?;
        let fields = [
            *number,
            is.mode(),
            is.uid(),
            is.gid(),
            1,
            0,
            length,
            rustix::fs::major(device),
            rustix::fs::minor(device),
        ];
        let written =
            entry(archive, inner.as_os_str().as_bytes(), fields).and_then(|()| padded(archive, &content));
        written.context("writing the archive")?;
        if kind.is_dir() {
            append(archive, root, &inner, without, number)?;
        }
    }
    Ok(())
}

/// Writes what stands before a file's content: number, mode, owner, group, links, time, length, device.
fn entry(archive: &mut impl Write, name: &[u8], fields: [u32; 9]) -> io::Result<()> {
    let [number, mode, user, group, links, time, length, major, minor] = fields;
    let header = [number, mode, user, group, links, time, length, 0, 0, major, minor];
    let mut text = Vec::from(*b"070701");
    for field in header.into_iter().chain([name.len() as u32 + 1, 0]) {
        write!(text, "{field:08X}")?;
    }
    text.extend_from_slice(name);
    text.push(0);
    padded(archive, &text)
}

/// Writes, and fills up to a multiple of four bytes.
fn padded(archive: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    archive.write_all(bytes)?;
    archive.write_all(&[0; 3][..bytes.len().next_multiple_of(4) - bytes.len()])
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn an_archive_has_what_the_folder_has() {
        let folder = std::env::temp_dir().join(format!("flotilla-archive-{}", std::process::id()));
        fs::create_dir_all(folder.join("etc/left-out")).unwrap();
        fs::write(folder.join("etc/name"), "m1\n").unwrap();
        symlink("name", folder.join("etc/link")).unwrap();
        let mut archive = Vec::new();
        write(&mut archive, &folder, &["etc/left-out"]).unwrap();
        end(&mut archive).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert!(archive.len().is_multiple_of(4));
        let text = String::from_utf8_lossy(&archive);
        // The header is 110 characters, and the name's length is its last field but one.
        let names: Vec<&str> = text
            .match_indices("070701")
            .map(|(at, _)| {
                let length = usize::from_str_radix(&text[at + 94..at + 102], 16).unwrap();
                &text[at + 110..at + 109 + length]
            })
            .collect();
        assert_eq!(names, ["etc", "etc/link", "etc/name", "TRAILER!!!"]);
        assert!(text.contains("m1\n\0"));
    }
}
