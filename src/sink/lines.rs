//! One JSON line a record, to a file or to standard output: at least once.
//!
//! ```json
//! {"topic":"shop.public.orders","key":{"id":1},"value":{"before":null},"headers":{}}
//! ```
//! Key and value are embedded as the JSON that the format wrote, `null` for none; so is a header's value where it is
//! JSON, and as a string where it is not.
//!
//! Order of things in a commit: all lines are written and synced, then the state file is replaced by rename and synced.
//! A crash between the two leaves lines whose position is not stored: they are written again after the next start. Never
//! the other way round, so nothing is lost. A torn last line (power cut) belongs to no commit and is cut off at the next
//! start. Nothing keeps a second daemon from writing to the same file: that is what the Kafka sink is for.

use super::{Entries, Record, Records, Sink, Stored};
use crate::state::codec;
use seachange_sdk::{Error, Kind, Result, Retry, Side};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

/// Lines are handed to the system at this size, and at commit.
const CHUNK: usize = 1 << 20;

enum Out {
    Stdout,
    File { path: PathBuf, file: Option<File> },
}

/// Writes lines.
pub struct LinesSink {
    out: Out,
    state: PathBuf,
    stored: Stored,
    buf: Vec<u8>,
}

impl LinesSink {
    /// To standard output.
    pub fn stdout(state: &Path) -> LinesSink {
        LinesSink { out: Out::Stdout, state: state.to_owned(), stored: Stored::new(), buf: Vec::new() }
    }
    /// Appends to a file.
    pub fn file(path: &Path, state: &Path) -> LinesSink {
        let out = Out::File { path: path.to_owned(), file: None };
        LinesSink { out, state: state.to_owned(), stored: Stored::new(), buf: Vec::new() }
    }

    fn write_out(&mut self) -> Result<()> {
        match &mut self.out {
            Out::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(&self.buf).and_then(|()| out.flush()).map_err(|e| io_error("standard output", e))?;
            }
            Out::File { path, file } => {
                let file = file.as_mut().ok_or_else(|| Error::bug("the file sink is used before it is opened"))?;
                file.write_all(&self.buf).map_err(|e| io_error(&path.display().to_string(), e))?;
            }
        }
        self.buf.clear();
        self.buf.shrink_to(4 * CHUNK);
        Ok(())
    }
}

fn io_error(place: &str, e: io::Error) -> Error {
    let retry = match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::Interrupted | io::ErrorKind::QuotaExceeded => Retry::Backoff,
        _ => Retry::Operator,
    };
    Error::new(Kind::Sink, Side::Sink, retry, format!("{place}: cannot be written"))
        .cause(e)
        .fix("see that the folder exists, may be written and has room")
}

fn line(buf: &mut Vec<u8>, records: &Records, r: &Record) -> io::Result<()> {
    let raw = |range: &Option<std::ops::Range<u32>>| range.as_ref().map_or(&b"null"[..], |x| records.bytes(x));
    buf.extend_from_slice(b"{\"topic\":");
    serde_json::to_writer(&mut *buf, &**records.topic_name(r.topic))?;
    buf.extend_from_slice(b",\"key\":");
    buf.extend_from_slice(raw(&r.key));
    buf.extend_from_slice(b",\"value\":");
    buf.extend_from_slice(raw(&r.value));
    buf.extend_from_slice(b",\"headers\":{");
    for (i, h) in records.headers[r.headers.start as usize..r.headers.end as usize].iter().enumerate() {
        if i > 0 {
            buf.push(b',');
        }
        serde_json::to_writer(&mut *buf, h.name)?;
        buf.push(b':');
        let value = records.bytes(&h.value);
        // Whitespace could hold a line's end.
        if !value.contains(&b'\n') && serde_json::from_slice::<serde::de::IgnoredAny>(value).is_ok() {
            buf.extend_from_slice(value);
        } else {
            serde_json::to_writer(&mut *buf, &String::from_utf8_lossy(value))?;
        }
    }
    buf.extend_from_slice(b"}}\n");
    Ok(())
}

/// What a state file holds; `None` if there is none.
pub fn read_state(path: &Path) -> Result<Option<Stored>> {
    match fs::read(path) {
        Ok(bytes) => codec::open_file(&bytes).map(Some).map_err(|e| e.at(path.display())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => {
            Err(Error::new(Kind::State, Side::Sink, Retry::Operator, format!("{}: cannot be read", path.display()))
                .cause(e)
                .fix("let Seachange read and write its state file"))
        }
    }
}

/// Replaces a file by rename: a reader finds the old content or the new one, whole.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    let dir = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    File::open(dir)?.sync_all()
}

/// Cuts off what follows the last line's end.
fn cut_torn_line(file: &mut File) -> io::Result<u64> {
    let len = file.metadata()?.len();
    let mut end = len;
    let mut piece = vec![0; 64 << 10];
    while end > 0 {
        let start = end.saturating_sub(piece.len() as u64);
        let part = &mut piece[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        if let Some(at) = part.iter().rposition(|b| *b == b'\n') {
            end = start + at as u64 + 1;
            break;
        }
        end = start;
    }
    if end < len {
        file.set_len(end)?;
    }
    Ok(len - end)
}

impl Sink for LinesSink {
    fn open(&mut self) -> Result<Stored> {
        self.buf.clear();
        if let Out::File { path, file } = &mut self.out {
            let place = path.display().to_string();
            let mut f = OpenOptions::new()
                .read(true)
                .append(true)
                .create(true)
                .open(&*path)
                .map_err(|e| io_error(&place, e))?;
            // Only a file can be cut; a named pipe or device is taken as it is.
            if f.metadata().map_err(|e| io_error(&place, e))?.is_file() {
                let cut = cut_torn_line(&mut f).map_err(|e| io_error(&place, e))?;
                if cut > 0 {
                    tracing::warn!(file = place, bytes = cut, "cut off a line that was not written whole");
                }
            }
            *file = Some(f);
        }
        self.stored = read_state(&self.state)?.unwrap_or_default();
        Ok(self.stored.clone())
    }

    fn append(&mut self, records: &Records) -> Result<()> {
        for r in &records.items {
            line(&mut self.buf, records, r).map_err(|e| Error::bug("a line cannot be written").cause(e))?;
            if self.buf.len() >= CHUNK {
                self.write_out()?;
            }
        }
        Ok(())
    }

    fn commit(&mut self, entries: &Entries) -> Result<()> {
        self.write_out()?;
        if let Out::File { path, file: Some(file) } = &self.out
            && file.metadata().is_ok_and(|m| m.is_file())
        {
            file.sync_data().map_err(|e| io_error(&path.display().to_string(), e))?;
        }
        if entries.is_empty() {
            return Ok(());
        }
        for (key, value) in entries {
            match value {
                Some(v) => self.stored.insert(key.clone(), v.clone()),
                None => self.stored.remove(key),
            };
        }
        let bytes = codec::seal_file(&self.stored)?;
        replace(&self.state, &bytes).map_err(|e| io_error(&self.state.display().to_string(), e))
    }

    fn abort(&mut self) -> Result<()> {
        // What went to the system already stays: at least once.
        self.buf.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::Header;

    fn records(values: &[Option<&str>]) -> Records {
        let mut r = Records::default();
        let topic = r.topic("shop.public.\"odd\"");
        for value in values {
            let mut put = |s: &str| {
                let start = r.buf.len() as u32;
                r.buf.extend_from_slice(s.as_bytes());
                start..r.buf.len() as u32
            };
            let key = Some(put(r#"{"id":1}"#));
            let value = value.map(&mut put);
            let (json, text) = (put(r#"{"a":2}"#), put("two\nlines"));
            let from = r.headers.len() as u32;
            r.headers.push(Header { name: "json", value: json });
            r.headers.push(Header { name: "text", value: text });
            let headers = from..r.headers.len() as u32;
            r.items.push(Record { topic, key, value, headers });
        }
        r
    }

    fn lines(path: &Path) -> Vec<serde_json::Value> {
        fs::read_to_string(path).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    #[test]
    fn lines_and_state_survive() {
        let dir = tempfile::tempdir().unwrap();
        let (out, state) = (dir.path().join("out"), dir.path().join("state"));
        let mut sink = LinesSink::file(&out, &state);
        assert!(sink.open().unwrap().is_empty());
        sink.append(&records(&[Some(r#"{"v":"ü"}"#), None])).unwrap();
        sink.commit(&vec![("a".into(), Some(b"1".to_vec())), ("b".into(), Some(vec![]))]).unwrap();
        let l = lines(&out);
        assert_eq!(
            l[0],
            serde_json::json!({"topic": "shop.public.\"odd\"", "key": {"id": 1}, "value": {"v": "ü"},
                               "headers": {"json": {"a": 2}, "text": "two\nlines"}})
        );
        assert_eq!((l.len(), &l[1]["value"]), (2, &serde_json::Value::Null));

        // Not committed, and torn by a crash: gone from the state, and from the file where it was not a whole line.
        sink.append(&records(&[Some("3")])).unwrap();
        drop(sink);
        fs::OpenOptions::new().append(true).open(&out).unwrap().write_all(b"{\"topic\":\"x\",\"ke").unwrap();
        let mut sink = LinesSink::file(&out, &state);
        let stored = sink.open().unwrap();
        assert_eq!(stored.into_iter().collect::<Vec<_>>(), [("a".into(), b"1".to_vec()), ("b".into(), vec![])]);
        sink.append(&records(&[Some("4")])).unwrap();
        sink.commit(&vec![("a".into(), None)]).unwrap();
        assert_eq!(lines(&out).len(), 3);
        assert_eq!(read_state(&state).unwrap().unwrap().keys().collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn an_aborted_append_leaves_nothing_when_it_was_small() {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = LinesSink::file(&dir.path().join("out"), &dir.path().join("state"));
        sink.open().unwrap();
        sink.append(&records(&[Some("1")])).unwrap();
        sink.abort().unwrap();
        sink.commit(&vec![]).unwrap();
        assert_eq!(fs::read(dir.path().join("out")).unwrap(), b"");
    }

    #[test]
    fn a_damaged_state_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        fs::write(&state, b"nonsense").unwrap();
        let e = LinesSink::stdout(&state).open().unwrap_err();
        assert_eq!(e.kind(), Kind::State);
        assert!(e.what().contains("state"), "{e}");
    }

    #[test]
    fn torn_lines_of_any_size_are_cut() {
        let dir = tempfile::tempdir().unwrap();
        for (content, whole) in [
            (String::new(), 0),
            ("x".repeat(200_000), 0),
            (format!("a\n{}", "x".repeat(200_000)), 2),
            ("a\nb\n".into(), 4),
        ] {
            let path = dir.path().join("f");
            fs::write(&path, &content).unwrap();
            let mut f = OpenOptions::new().read(true).append(true).open(&path).unwrap();
            cut_torn_line(&mut f).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().len(), whole);
        }
    }
}
