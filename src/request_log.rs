//! The opt-in request log (O7): one file per request with what was asked and what was answered.
//!
//! Files can only be read by their owner, hold no secret of the configuration, and are bounded in
//! number and bytes: the oldest go first. Whatever goes wrong with the disk, no request suffers.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use log::warn;
use parking_lot::Mutex;
use serde_json::value::RawValue;

use crate::clock;
use crate::journal;
use crate::mask::Masks;
use crate::record::Record;

/// How much of a body is kept.
const KEPT: usize = 256 * 1024;

/// A disk that is full is complained about this often.
const COMPLAIN_SECONDS: u64 = 60;

/// As the config has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub folder: PathBuf,
    pub max_files: usize,
    pub max_bytes: u64,
}

/// The bodies of one request on its way.
#[derive(Debug, Default)]
pub struct Transcript {
    /// Method and path.
    route: String,
    request: Kept,
    answer: Kept,
}

#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    is_cut: bool,
}

impl Kept {
    fn add(&mut self, bytes: &[u8]) {
        let room = KEPT.saturating_sub(self.bytes.len());
        self.is_cut |= bytes.len() > room;
        self.bytes
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Without secrets; where the end is missing, without what may be the begin of one.
    fn text(&self, masks: &Masks) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        let mut masked = masks.text(&text).into_owned();
        if self.is_cut {
            let mut end = masked.len().saturating_sub(masks.longest());
            while !masked.is_char_boundary(end) {
                end -= 1;
            }
            masked.truncate(end);
        }
        masked
    }
}

impl Transcript {
    pub fn new(route: String) -> Transcript {
        Transcript {
            route,
            ..Transcript::default()
        }
    }

    pub fn request(&mut self, body: &[u8]) {
        self.request.add(body);
    }

    /// More of the request came than is kept of it.
    pub fn request_goes_on(&mut self) {
        self.request.is_cut = true;
    }

    pub fn answer(&mut self, bytes: &[u8]) {
        self.answer.add(bytes);
    }
}

/// A folder of files.
pub struct RequestLog {
    settings: Settings,
    files: Mutex<Files>,
    number: AtomicU64,
    complained: AtomicU64,
}

#[derive(Default)]
struct Files {
    /// Oldest first, with their sizes.
    list: VecDeque<(PathBuf, u64)>,
    bytes: u64,
}

impl RequestLog {
    /// Takes up where an earlier weir left off. A folder that cannot be used is complained about,
    /// then and with the first requests.
    pub fn open(settings: &Settings) -> RequestLog {
        let log = RequestLog {
            settings: settings.clone(),
            files: Mutex::default(),
            number: AtomicU64::new(0),
            complained: AtomicU64::new(0),
        };
        let folder = &settings.folder;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        match made.and_then(|()| log.find()) {
            Ok(files) => {
                let mut known = log.files.lock();
                *known = files;
                log.trim(&mut known);
                drop(known);
            }
            Err(error) => log.complain(&error),
        }
        log
    }

    pub fn is_for(&self, settings: &Settings) -> bool {
        self.settings == *settings
    }

    fn find(&self) -> io::Result<Files> {
        let mut list: Vec<(PathBuf, u64)> = Vec::new();
        for entry in fs::read_dir(&self.settings.folder)? {
            let entry = entry?;
            let size = entry.metadata().map_or(0, |data| data.len());
            if is_ours(&entry.file_name().to_string_lossy()) {
                list.push((entry.path(), size));
            }
        }
        // Their names begin with their times.
        list.sort();
        let bytes = list.iter().map(|(_, size)| size).sum();
        Ok(Files {
            list: list.into(),
            bytes,
        })
    }

    /// Writes the file of a request that has ended.
    pub fn write(&self, record: &Record, masks: &Masks) {
        let Some(transcript) = &record.transcript else {
            return;
        };
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let time = journal::timestamp(SystemTime::now()).replace(':', "");
        let name = format!("{time}-{number:06}-{}.json", record.id);
        let path = self.settings.folder.join(name);
        let text = text(record, transcript, masks);
        if let Err(error) = create(&path, text.as_bytes()) {
            // Half a file helps nobody.
            let _ = fs::remove_file(&path);
            return self.complain(&error);
        }
        let size = text.len() as u64;
        let mut files = self.files.lock();
        files.list.push_back((path, size));
        files.bytes += size;
        self.trim(&mut files);
    }

    fn trim(&self, files: &mut Files) {
        let limits = &self.settings;
        while files.list.len() > limits.max_files || files.bytes > limits.max_bytes {
            let Some((path, size)) = files.list.pop_front() else {
                break;
            };
            files.bytes = files.bytes.saturating_sub(size);
            // Somebody else may have taken it away.
            let _ = fs::remove_file(path);
        }
    }

    fn complain(&self, error: &io::Error) {
        if self.may_complain(clock::unix_seconds()) {
            let folder = self.settings.folder.display();
            warn!("the request log in {folder} cannot be written: {error}");
        }
    }

    /// Once in a while, counted from the last time that it was said.
    fn may_complain(&self, now: u64) -> bool {
        let said = |last: u64| (now.saturating_sub(last) >= COMPLAIN_SECONDS).then_some(now);
        self.complained
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, said)
            .is_ok()
    }
}

/// A name that `write` gave: `2026-11-24T...-id.json`.
fn is_ours(name: &str) -> bool {
    let bytes = name.as_bytes();
    name.ends_with(".json")
        && bytes.len() > 30
        && bytes[..4].iter().all(u8::is_ascii_digit)
        && (bytes[4], bytes[7], bytes[10]) == (b'-', b'-', b'T')
}

fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)
}

/// One JSON object: the record, then the bodies, which stand as they are where they are JSON.
fn text(record: &Record, transcript: &Transcript, masks: &Masks) -> String {
    let time = journal::timestamp(SystemTime::now());
    let body = |kept: &Kept| {
        let text = kept.text(masks);
        match serde_json::from_str::<&RawValue>(&text) {
            Ok(raw) => raw.get().to_owned(),
            Err(_) => serde_json::Value::from(text).to_string(),
        }
    };
    let line = masks.text(&record.json()).into_owned();
    let route = serde_json::Value::from(masks.text(&transcript.route));
    format!(
        "{{\"time\":\"{time}\",\"route\":{route},\"record\":{line},\n\"request_cut\":{},\"request\":{},\n\"answer_cut\":{},\"answer\":{}}}\n",
        transcript.request.is_cut,
        body(&transcript.request),
        transcript.answer.is_cut,
        body(&transcript.answer)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let name = format!("weir-log-{}-{name}", std::process::id());
            Folder(std::env::temp_dir().join(name))
        }

        fn names(&self) -> Vec<String> {
            let list = fs::read_dir(&self.0).unwrap();
            let mut names: Vec<_> = list
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn record(id: &str, answer: &[u8]) -> Record {
        let mut record = Record::new(id.into(), "chat");
        let mut transcript = Box::<Transcript>::default();
        transcript.request(br#"{"model":"m"}"#);
        transcript.answer(answer);
        record.transcript = Some(transcript);
        record
    }

    #[test]
    fn files_are_private_and_the_oldest_go_first() {
        let folder = Folder::new("bounds");
        let settings = Settings {
            folder: folder.0.clone(),
            max_files: 3,
            max_bytes: 1 << 20,
        };
        let log = RequestLog::open(&settings);
        fs::write(folder.0.join("notes.json"), "not ours").unwrap();
        for id in ["a", "b", "c", "d"] {
            log.write(&record(id, b"data: {}\n\n"), &Masks::default());
        }
        let names = folder.names();
        assert_eq!(names.len(), 4, "{names:?}");
        assert!(names[0].ends_with("-b.json"), "{names:?}");
        let file = folder.0.join(&names[2]);
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let json: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        assert_eq!(json["request"]["model"], "m");
        assert_eq!(json["answer"], "data: {}\n\n");
        assert_eq!(json["record"]["id"], "d");

        // Another weir goes on with what is there.
        let settings = Settings {
            max_files: 1,
            ..settings
        };
        drop(RequestLog::open(&settings));
        let names = folder.names();
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(names[0].ends_with("-d.json") && names[1] == "notes.json");
    }

    #[test]
    fn bodies_and_the_whole_folder_are_bounded_in_bytes() {
        let folder = Folder::new("bytes");
        let settings = Settings {
            folder: folder.0.clone(),
            max_files: 100,
            max_bytes: 600 * 1024,
        };
        let log = RequestLog::open(&settings);
        for id in ["a", "b", "c"] {
            log.write(&record(id, &vec![b'x'; 4 << 20]), &Masks::default());
        }
        let names = folder.names();
        assert_eq!(names.len(), 2, "{names:?}");
        let size = fs::metadata(folder.0.join(&names[1])).unwrap().len();
        assert!(size < (KEPT + 1024) as u64, "{size}");
    }

    #[test]
    fn a_folder_that_cannot_be_written_harms_nobody() {
        let settings = Settings {
            folder: "/dev/null/never".into(),
            max_files: 1,
            max_bytes: 1,
        };
        let log = RequestLog::open(&settings);
        log.write(&record("a", b""), &Masks::default());
        assert!(log.files.lock().list.is_empty());
    }

    #[test]
    fn what_goes_on_to_fail_is_told_each_minute() {
        let settings = Settings {
            folder: "/dev/null/never".into(),
            max_files: 1,
            max_bytes: 1,
        };
        let log = RequestLog::open(&settings);
        let begin = clock::unix_seconds() + COMPLAIN_SECONDS;
        // With every second's failure, as with a busy gateway.
        let told: Vec<u64> = (0..150).filter(|s| log.may_complain(begin + s)).collect();
        assert_eq!(told, [0, 60, 120]);
    }
}
