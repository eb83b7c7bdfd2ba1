//! Files that the configuration names, read without waiting for ever.
//!
//! A reload runs on the thread that hears signals, so a named pipe whose writer says nothing must
//! not hold it. Pipes as such are fine: shells make them for `<(command)`.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::sys;

/// How long a pipe may take to say all that it has.
const WAIT: Duration = Duration::from_secs(2);

/// The file's bytes, and no more than `most` of them.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut file = OpenOptions::new()
        .read(true)
        // A pipe without a writer is then one that has ended, rather than one to wait for.
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)?;
    let until = Instant::now() + WAIT;
    let mut bytes = Vec::new();
    loop {
        let room = most.saturating_sub(bytes.len() as u64);
        match file.by_ref().take(room).read_to_end(&mut bytes) {
            Ok(_) => return Ok(bytes),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() || !sys::is_readable_within(&file, left) {
                    return Err(io::Error::new(
                        ErrorKind::TimedOut,
                        format!("nothing came within {} s", WAIT.as_secs()),
                    ));
                }
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsRawFd;

    #[test]
    fn pipes_are_read_to_their_end_and_silent_ones_are_left() {
        let (reader, mut writer) = io::pipe().unwrap();
        let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
        writer.write_all(b"abc").unwrap();
        let late = std::thread::spawn(move || {
            writer.write_all(b"def").unwrap();
        });
        assert_eq!(read(Path::new(&path), 100).unwrap(), b"abcdef");
        late.join().unwrap();

        let (reader, _writer) = io::pipe().unwrap();
        let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
        let error = read(Path::new(&path), 100).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn no_more_is_read_than_wanted() {
        assert_eq!(read(Path::new("/dev/zero"), 10).unwrap(), [0; 10]);
        assert!(read(Path::new("/nowhere"), 10).is_err());
        assert!(read(Path::new("/"), 10).is_err());
    }
}
