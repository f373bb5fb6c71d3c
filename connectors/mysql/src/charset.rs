//! Every character set that the servers know, to UTF-8.
//!
//! The binlog carries text in the column's own character set, and a snapshot asks the server for the same bytes
//! (`character_set_results = NULL`), so that one decoder serves both and the same row gives the same text. The tables in
//! `charsets.bin` are MySQL's own mappings, taken code by code from the server's `CONVERT(... USING utf8mb4)`: they differ
//! from the web's encodings of the same names (`sjis`, `euckr`, `big5`, `latin1` ...). Codes to which the server gives no
//! character become U+FFFD (the server itself prints `?`); text that claims to be Unicode and is not is an error.
//!
//! `charsets.bin`: the unpacked length, then deflated entries: name, kind, first and last lead byte, first and last trail
//! byte, one 16-bit code a cell. Kind 1 is a single-byte set, 2 the two-byte codes of a set, 3 those behind 0x8F.

use seachange_sdk::{Error, Result};
use std::{
    borrow::Cow,
    collections::HashMap,
    io::Read,
    sync::{Arc, LazyLock},
};

const GONE: char = '\u{fffd}';

/// A character set. `u8` so that it fits a decoder's parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Charset(u8);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Binary,
    Utf8,
    /// Two bytes a character, no more: surrogates are no characters.
    Ucs2,
    Utf16,
    Utf16le,
    Utf32,
    /// A table of its own.
    Single,
    Double,
}

/// Name and form, in the order of their numbers. Numbers are internal, they are stored nowhere.
const ALL: &[(&str, Form)] = &[
    ("binary", Form::Binary),
    ("utf8mb4", Form::Utf8),
    ("utf8mb3", Form::Utf8),
    ("utf8", Form::Utf8),
    ("ucs2", Form::Ucs2),
    ("utf16", Form::Utf16),
    ("utf16le", Form::Utf16le),
    ("utf32", Form::Utf32),
    ("latin1", Form::Single),
    ("ascii", Form::Single),
    ("armscii8", Form::Single),
    ("cp1250", Form::Single),
    ("cp1251", Form::Single),
    ("cp1256", Form::Single),
    ("cp1257", Form::Single),
    ("cp850", Form::Single),
    ("cp852", Form::Single),
    ("cp866", Form::Single),
    ("dec8", Form::Single),
    ("geostd8", Form::Single),
    ("greek", Form::Single),
    ("hebrew", Form::Single),
    ("hp8", Form::Single),
    ("keybcs2", Form::Single),
    ("koi8r", Form::Single),
    ("koi8u", Form::Single),
    ("latin2", Form::Single),
    ("latin5", Form::Single),
    ("latin7", Form::Single),
    ("macce", Form::Single),
    ("macroman", Form::Single),
    ("swe7", Form::Single),
    ("tis620", Form::Single),
    ("big5", Form::Double),
    ("cp932", Form::Double),
    ("eucjpms", Form::Double),
    ("euckr", Form::Double),
    ("gb18030", Form::Double),
    ("gb2312", Form::Double),
    ("gbk", Form::Double),
    ("sjis", Form::Double),
    ("ujis", Form::Double),
];

impl Charset {
    /// Bytes that are no text.
    pub const BINARY: Charset = Charset(0);
    /// What most text is in.
    pub const UTF8MB4: Charset = Charset(1);

    /// By the server's name.
    pub fn named(name: &str) -> Option<Charset> {
        ALL.iter().position(|(n, _)| *n == name).map(|i| Charset(i as u8))
    }
    /// Its name.
    pub fn name(self) -> &'static str {
        ALL.get(usize::from(self.0)).map_or("?", |x| x.0)
    }
    /// As a decoder's parameter.
    pub fn number(self) -> i32 {
        i32::from(self.0)
    }
    /// From a decoder's parameter.
    pub fn from_number(n: i32) -> Charset {
        Charset(u8::try_from(n).unwrap_or(0))
    }
    /// Is it no text at all?
    pub fn is_binary(self) -> bool {
        self == Charset::BINARY
    }
    /// The text as UTF-8, borrowed where it is UTF-8 already.
    pub fn decode(self, bytes: &[u8]) -> Result<Cow<'_, str>> {
        let form = ALL.get(usize::from(self.0)).map_or(Form::Binary, |x| x.1);
        match form {
            Form::Utf8 => std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|e| self.bad(e.valid_up_to())),
            Form::Binary => Err(Error::value("binary data where text was expected")),
            Form::Ucs2 => {
                let (chunks, rest) = bytes.as_chunks::<2>();
                let text = chunks.iter().map(|c| code(&u16::from_be_bytes(*c))).collect();
                if rest.is_empty() { Ok(Cow::Owned(text)) } else { Err(self.bad(bytes.len())) }
            }
            Form::Utf16 => self.utf16(bytes, u16::from_be_bytes).map(Cow::Owned),
            Form::Utf16le => self.utf16(bytes, u16::from_le_bytes).map(Cow::Owned),
            Form::Utf32 => {
                let (chunks, rest) = bytes.as_chunks::<4>();
                // MariaDB lets lone surrogates in: they are no characters
                let one = |n: u32| char::from_u32(n).or(matches!(n, 0xd800..=0xdfff).then_some(GONE));
                let text: Option<String> = chunks.iter().map(|c| one(u32::from_be_bytes(*c))).collect();
                text.filter(|_| rest.is_empty()).map(Cow::Owned).ok_or_else(|| self.bad(0))
            }
            Form::Single => Ok(self.single(bytes)),
            Form::Double => Ok(self.double(bytes)),
        }
    }
    #[cold]
    fn bad(self, at: usize) -> Error {
        Error::value(format!("text that is not valid {} (at byte {at})", self.name()))
            .fix("correct the value in the table, or leave the column out with columns.exclude")
    }
    fn utf16(self, bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String> {
        let (chunks, rest) = bytes.as_chunks::<2>();
        let mut out = String::with_capacity(bytes.len());
        for c in char::decode_utf16(chunks.iter().map(|c| unit(*c))) {
            out.push(c.map_err(|_| self.bad(0))?);
        }
        if rest.is_empty() { Ok(out) } else { Err(self.bad(bytes.len())) }
    }
    fn single(self, bytes: &[u8]) -> Cow<'_, str> {
        // swe7 is the one set in which bytes below 0x80 are not ASCII; the others borrow.
        if self.name() != "swe7"
            && bytes.is_ascii()
            && let Ok(s) = std::str::from_utf8(bytes)
        {
            return Cow::Borrowed(s);
        }
        let table = TABLES.single.get(self.name());
        Cow::Owned(bytes.iter().map(|b| table.and_then(|t| t.get(usize::from(*b))).map_or(GONE, code)).collect())
    }
    fn double(self, bytes: &[u8]) -> Cow<'_, str> {
        if bytes.is_ascii()
            && let Ok(s) = std::str::from_utf8(bytes)
        {
            return Cow::Borrowed(s);
        }
        let two = TABLES.double.get(self.name());
        let three = TABLES.triple.get(self.name());
        let shift_jis = matches!(self.name(), "sjis" | "cp932");
        let mut out = String::with_capacity(bytes.len() * 2);
        let mut rest = bytes;
        while let [lead, tail @ ..] = rest {
            rest = tail;
            if *lead < 0x80 {
                out.push(char::from(*lead));
                continue;
            }
            if shift_jis && (0xa1..=0xdf).contains(lead) {
                // half-width katakana stand in a row: 0xA1 is U+FF61
                out.push(char::from_u32(0xff61 + u32::from(lead - 0xa1)).unwrap_or(GONE));
                continue;
            }
            match rest {
                [a, b, tail @ ..] if *lead == 0x8f && three.is_some() => {
                    out.push(three.map_or(GONE, |t| t.get(*a, *b)));
                    rest = tail;
                }
                [b @ 0x30..=0x39, c, d, tail @ ..] if self.name() == "gb18030" => {
                    // four-byte codes are arithmetic, the same for everybody
                    let (text, _, bad) = encoding_rs::GB18030.decode(&[*lead, *b, *c, *d]).clone_owned();
                    out.push(if bad { GONE } else { text.chars().next().unwrap_or(GONE) });
                    rest = tail;
                }
                [b, tail @ ..] => {
                    out.push(two.map_or(GONE, |t| t.get(*lead, *b)));
                    rest = tail;
                }
                [] => out.push(GONE),
            }
        }
        Cow::Owned(out)
    }
}

trait CloneOwned {
    fn clone_owned(self) -> (String, &'static encoding_rs::Encoding, bool);
}
impl CloneOwned for (Cow<'_, str>, &'static encoding_rs::Encoding, bool) {
    fn clone_owned(self) -> (String, &'static encoding_rs::Encoding, bool) {
        (self.0.into_owned(), self.1, self.2)
    }
}

fn code(n: &u16) -> char {
    char::from_u32(u32::from(*n)).unwrap_or(GONE)
}

struct Grid {
    lead: u8,
    trail: u8,
    width: usize,
    codes: Vec<u16>,
}

impl Grid {
    fn get(&self, a: u8, b: u8) -> char {
        let (Some(row), Some(col)) = (a.checked_sub(self.lead), b.checked_sub(self.trail)) else { return GONE };
        if usize::from(col) >= self.width {
            return GONE;
        }
        self.codes.get(usize::from(row) * self.width + usize::from(col)).map_or(GONE, code)
    }
}

#[derive(Default)]
struct Tables {
    single: HashMap<String, Vec<u16>>,
    double: HashMap<String, Grid>,
    triple: HashMap<String, Grid>,
}

static TABLES: LazyLock<Tables> = LazyLock::new(|| {
    // The file is part of this program; `every_table_is_there` proves that it unpacks whole.
    let packed: &[u8] = include_bytes!("charsets.bin");
    let mut plain = Vec::new();
    let mut tables = Tables::default();
    if flate2::read::ZlibDecoder::new(packed.get(4..).unwrap_or(&[])).read_to_end(&mut plain).is_err() {
        return tables;
    }
    let mut b = crate::wire::Bytes::new(&plain);
    while !b.is_empty() {
        let mut entry = || -> Result<()> {
            let n = usize::from(b.u8()?);
            let name = String::from_utf8_lossy(b.take(n)?).into_owned();
            let [kind, lo, hi, first, last] = b.array()?;
            let width = usize::from(last) + 1 - usize::from(first);
            let cells = (usize::from(hi) + 1 - usize::from(lo)) * width;
            let codes = b.take(cells * 2)?.as_chunks::<2>().0.iter().map(|c| u16::from_le_bytes(*c)).collect();
            match kind {
                1 => drop(tables.single.insert(name, codes)),
                2 => drop(tables.double.insert(name, Grid { lead: lo, trail: first, width, codes })),
                _ => drop(tables.triple.insert(name, Grid { lead: lo, trail: first, width, codes })),
            }
            Ok(())
        };
        if entry().is_err() {
            break;
        }
    }
    tables
});

/// Which character set a collation's number stands for, as the server says (`information_schema`).
#[derive(Clone, Debug, Default)]
pub struct Collations {
    by_id: Arc<HashMap<u64, Charset>>,
}

impl Collations {
    /// From the server's rows of number and character set name. Sets that are unknown here are left out: a column in one
    /// is refused when it is met.
    pub fn new(rows: impl IntoIterator<Item = (u64, String)>) -> Collations {
        Collations {
            by_id: Arc::new(rows.into_iter().filter_map(|(id, name)| Some((id, Charset::named(&name)?))).collect()),
        }
    }
    /// The character set of a collation.
    pub fn charset(&self, id: u64) -> Option<Charset> {
        self.by_id.get(&id).copied().or_else(|| {
            // the ones that every server has had for twenty years
            Some(match id {
                63 => Charset::BINARY,
                45 | 46 | 255 => Charset::UTF8MB4,
                8 | 47 | 48 => Charset::named("latin1")?,
                11 | 65 => Charset::named("ascii")?,
                33 | 83 => Charset::named("utf8mb3")?,
                _ => return None,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(set: &str, bytes: &[u8]) -> String {
        Charset::named(set).unwrap().decode(bytes).unwrap().into_owned()
    }
    #[test]
    fn every_table_is_there() {
        for (name, form) in ALL {
            match form {
                Form::Single => assert_eq!(TABLES.single[*name].len(), 256, "{name}"),
                Form::Double => assert!(TABLES.double[*name].codes.len() > 8000, "{name}"),
                _ => {}
            }
        }
        assert!(TABLES.triple.contains_key("ujis") && TABLES.triple.contains_key("eucjpms"));
    }
    #[test]
    fn as_the_server_converts() {
        assert_eq!(text("latin1", b"\xe9\xe0\xfc\x80\x81"), "éàü€\u{81}");
        assert_eq!(text("gbk", b"\xba\xba\xd7\xd6"), "汉字");
        assert_eq!(text("ucs2", b"\x65\xe5\x67\x2c"), "日本");
        assert_eq!(text("utf16", b"\xd8\x3d\xde\x00"), "😀");
        assert_eq!(text("utf16le", b"\x3d\xd8\x00\xde"), "😀");
        assert_eq!(text("utf32", b"\0\x01\xf6\0"), "😀");
        // the wave dash, where MySQL's sjis and cp932 part
        assert_eq!((text("sjis", b"\x81\x60"), text("cp932", b"\x81\x60")), ("〜".into(), "～".into()));
        assert_eq!(text("sjis", b"a\xb1\x83\x65"), "aｱテ");
        assert_eq!(text("ujis", b"\x8e\xb1\xa5\xc6\x8f\xb0\xa1"), "ｱテ丂");
        assert_eq!(text("gb18030", b"\xba\xba\x94\x39\xfc\x36"), "汉😀");
        assert_eq!(text("swe7", b"[\\]"), "ÄÖÅ");
        assert_eq!(text("big5", b"\xa4\xa4"), "中");
        assert_eq!(text("euckr", b"\xc7\xd1"), "한");
    }
    #[test]
    fn what_is_no_text_is_said() {
        for (set, bytes) in [
            ("utf8mb4", &b"a\xff"[..]),
            ("utf16", b"\xd8\x3d"),
            ("ucs2", b"\x65"),
            ("utf32", b"\0\x11\0\0"),
            ("binary", b"a"),
        ] {
            assert!(Charset::named(set).unwrap().decode(bytes).is_err(), "{set}");
        }
        assert_eq!(text("big5", b"\xff"), "\u{fffd}");
        assert_eq!(text("ascii", b"\xff"), "\u{fffd}");
    }
    proptest! {
        #[test]
        fn nothing_panics(set in 0..ALL.len(), bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _seen = Charset(set as u8).decode(&bytes).is_ok();
        }
    }
}
