//! Arrays and hstore: walked in the text the server printed, never built.
//!
//! An array is what `array_out` prints: optional bounds (`[0:1][2:3]=`), then braces. What counts are the elements: the
//! bounds of an array say how its subscripts are counted, no representation downstream has a place for them, and they are
//! skipped (after they were checked to be bounds). An element is quoted exactly when it has to be, so `NULL` without
//! quotes is NULL and `"NULL"` is text. The delimiter is the element type's (`;` for `box`, `,` for all others).
//!
//! The walk is a loop with a depth, not a recursion; a value nested too deep for the server (more than six dimensions)
//! is refused. Elements borrow from the cell; only those that hold a backslash are unescaped into one scratch buffer.

use crate::decode::{unreadable, utf8};
use seachange_sdk::{Nested, Param, Result, Value, Visitor};
use std::borrow::Cow;

/// PostgreSQL's own bound (`MAXDIM`).
const DIMENSIONS: usize = 6;

/// An array of anything: `param.element` decodes its elements, `param.delimiter` stands between them.
pub fn array<'a>(param: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    Ok(Value::Nested(Nested { raw: bytes, param, walk: walk_array }))
}

/// `hstore`: text to text or NULL.
pub fn hstore<'a>(param: &'a Param, bytes: &'a [u8]) -> Result<Value<'a>> {
    Ok(Value::Nested(Nested { raw: bytes, param, walk: walk_hstore }))
}

/// Takes bounds off the front: `[0:1][-3:4]=`.
fn skip_bounds(bytes: &[u8]) -> Option<&[u8]> {
    if bytes.first() != Some(&b'[') {
        return Some(bytes);
    }
    let equals = bytes.iter().position(|b| *b == b'=')?;
    let bounds = bytes.get(..equals)?;
    let fine = bounds.last() == Some(&b']')
        && bounds.iter().all(|b| matches!(b, b'0'..=b'9' | b'-' | b'+' | b':' | b'[' | b']'));
    if fine { bytes.get(equals + 1..) } else { None }
}

/// Takes a quoted piece, whose opening quote is already gone, off the front: its bytes (in `scratch` when something had
/// to be unescaped) and the rest.
fn quoted<'p, 'a: 'p>(bytes: &'a [u8], scratch: &'p mut Vec<u8>) -> Option<(&'p [u8], &'a [u8])> {
    let first = bytes.iter().position(|b| matches!(b, b'"' | b'\\'))?;
    if bytes.get(first) == Some(&b'"') {
        return Some((bytes.get(..first)?, bytes.get(first + 1..)?));
    }
    scratch.clear();
    scratch.extend_from_slice(bytes.get(..first)?);
    let mut rest = bytes.get(first..)?;
    loop {
        rest = match rest {
            [b'"', tail @ ..] => return Some((scratch, tail)),
            [b'\\', c, tail @ ..] => {
                scratch.push(*c);
                tail
            }
            [b'\\'] | [] => return None,
            [c, tail @ ..] => {
                scratch.push(*c);
                tail
            }
        };
    }
}

fn walk_array(param: &Param, bytes: &[u8], visitor: &mut dyn Visitor) -> Result<()> {
    let bad = || unreadable("array");
    let element =
        param.element.as_ref().ok_or_else(|| seachange_sdk::Error::bug("an array column has no element decoder"))?;
    let delimiter = if param.delimiter == 0 { b',' } else { param.delimiter };
    let mut rest = skip_bounds(bytes).ok_or_else(bad)?;
    let mut scratch = Vec::new();
    let mut depth = 0usize;
    // Whether a list has just begun (so that it may end at once, as `{}` does).
    let mut begun = false;
    loop {
        // Here an element, a list, or the end of an empty list stands.
        match rest.split_first() {
            Some((b'{', tail)) => {
                depth += 1;
                if depth > DIMENSIONS {
                    return Err(bad());
                }
                visitor.begin_list()?;
                rest = tail;
                begun = true;
                continue;
            }
            Some((b'}', _)) if begun => {}
            _ if depth == 0 => return Err(bad()),
            Some((b'"', tail)) => {
                let (piece, after) = quoted(tail, &mut scratch).ok_or_else(bad)?;
                visitor.value(element.value(piece)?)?;
                rest = after;
            }
            Some(_) => {
                let end = rest.iter().position(|b| *b == delimiter || *b == b'}').ok_or_else(bad)?;
                let piece = rest.get(..end).unwrap_or_default();
                if piece.is_empty() || piece.iter().any(|b| matches!(b, b'{' | b'"' | b'\\')) {
                    return Err(bad());
                }
                if piece.eq_ignore_ascii_case(b"NULL") {
                    visitor.value(Value::Null)?;
                } else {
                    visitor.value(element.value(piece)?)?;
                }
                rest = rest.get(end..).unwrap_or_default();
            }
            None => return Err(bad()),
        }
        begun = false;
        // Here what follows an element or a list stands.
        loop {
            match rest.split_first() {
                Some((b, tail)) if *b == delimiter && depth > 0 => {
                    rest = tail;
                    break;
                }
                Some((b'}', tail)) if depth > 0 => {
                    visitor.end_list()?;
                    depth -= 1;
                    rest = tail;
                }
                None if depth == 0 => return Ok(()),
                _ => return Err(bad()),
            }
        }
    }
}

fn walk_hstore(_: &Param, bytes: &[u8], visitor: &mut dyn Visitor) -> Result<()> {
    let bad = || unreadable("hstore");
    let mut scratch = Vec::new();
    visitor.begin_map()?;
    let mut rest = bytes;
    while !rest.is_empty() {
        let tail = rest.strip_prefix(b"\"").ok_or_else(bad)?;
        let (key, tail) = quoted(tail, &mut scratch).ok_or_else(bad)?;
        visitor.key(utf8(key)?)?;
        let tail = tail.strip_prefix(b"=>").ok_or_else(bad)?;
        rest = if let Some(tail) = tail.strip_prefix(b"\"") {
            let (value, tail) = quoted(tail, &mut scratch).ok_or_else(bad)?;
            visitor.value(Value::Text(Cow::Borrowed(utf8(value)?)))?;
            tail
        } else {
            let tail = tail.strip_prefix(b"NULL").ok_or_else(bad)?;
            visitor.value(Value::Null)?;
            tail
        };
        if !rest.is_empty() {
            rest = rest.strip_prefix(b", ").filter(|r| !r.is_empty()).ok_or_else(bad)?;
        }
    }
    visitor.end_map()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::decode::{self, datetime};
    use proptest::prelude::*;
    use seachange_sdk::{DecodeFn, Decoder};
    use std::{fmt::Write as _, sync::Arc};

    /// Writes a walk down in a form that keeps all that matters: `[1,null,"a"]`, `{"k":"v"}`.
    #[derive(Default)]
    pub(crate) struct Shown(pub(crate) String);

    impl Shown {
        fn comma(&mut self) {
            if !matches!(self.0.as_bytes().last(), None | Some(b'[' | b'{' | b':')) {
                self.0.push(',');
            }
        }
    }
    impl Visitor for Shown {
        fn begin_list(&mut self) -> Result<()> {
            self.comma();
            self.0.push('[');
            Ok(())
        }
        fn end_list(&mut self) -> Result<()> {
            self.0.push(']');
            Ok(())
        }
        fn begin_map(&mut self) -> Result<()> {
            self.comma();
            self.0.push('{');
            Ok(())
        }
        fn end_map(&mut self) -> Result<()> {
            self.0.push('}');
            Ok(())
        }
        fn key(&mut self, key: &str) -> Result<()> {
            self.comma();
            write!(self.0, "{key:?}:").unwrap();
            Ok(())
        }
        fn value(&mut self, value: Value<'_>) -> Result<()> {
            self.comma();
            match value {
                Value::Null => self.0.push_str("null"),
                Value::Text(t) => write!(self.0, "{t:?}").unwrap(),
                Value::Nested(n) => {
                    // The comma before it is already there.
                    let mut inner = Shown::default();
                    n.walk(&mut inner)?;
                    self.0.push_str(&inner.0);
                }
                other => write!(self.0, "{other:?}").unwrap(),
            }
            Ok(())
        }
    }

    pub(crate) fn array_of(decode: DecodeFn, delimiter: u8) -> Param {
        Param { element: Some(Arc::new(Decoder::plain(decode))), delimiter, ..Param::default() }
    }
    fn show(param: &Param, f: DecodeFn, text: &[u8]) -> Result<String> {
        let mut shown = Shown::default();
        match f(param, text)? {
            Value::Nested(n) => n.walk(&mut shown)?,
            other => panic!("{other:?}"),
        }
        Ok(shown.0)
    }

    #[test]
    fn arrays() {
        let text = array_of(decode::text, b',');
        for (shown, want) in [
            ("{}", "[]"),
            ("{a}", r#"["a"]"#),
            (r#"{a,"b c","quote\"d",NULL,""}"#, r#"["a","b c","quote\"d",null,""]"#),
            (r#"{"NULL",null}"#, r#"["NULL",null]"#),
            (r#"{"a\\b","{","}",","}"#, r#"["a\\b","{","}",","]"#),
            ("{{a,b},{c,d}}", r#"[["a","b"],["c","d"]]"#),
            ("[0:1]={a,b}", r#"["a","b"]"#),
            ("[-2:-2][3:4]={{a,b}}", r#"[["a","b"]]"#),
            ("{très}", r#"["très"]"#),
            ("{a b}", r#"["a b"]"#),
        ] {
            assert_eq!(show(&text, array, shown.as_bytes()).unwrap(), want, "{shown}");
        }
        for bad in [
            "",
            "{",
            "}",
            "{}}",
            "{a",
            "{a,}",
            "{,a}",
            "{\"a}",
            "{\"a\"b}",
            "a",
            "{a}b",
            "{{}",
            "[0:1]{a}",
            "[x]={a}",
            "{\"a\\",
            "{{{{{{{a}}}}}}}",
            "{}{}",
            ",",
            "{a\\b}",
            "{a}{b}",
            "{a{b}}",
        ] {
            assert!(show(&text, array, bad.as_bytes()).is_err(), "{bad}");
        }
        let boxes = array_of(decode::text, b';');
        assert_eq!(show(&boxes, array, b"{(1,1),(0,0);(3,3),(2,2)}").unwrap(), r#"["(1,1),(0,0)","(3,3),(2,2)"]"#);
        let ints = array_of(decode::int4, b',');
        assert_eq!(show(&ints, array, b"{1,NULL,-3}").unwrap(), "[I64(1),null,I64(-3)]");
        assert!(show(&ints, array, b"{1,x}").is_err());
        let stamps = array_of(datetime::timestamptz, b',');
        assert_eq!(
            show(&stamps, array, b"{\"2024-01-01 00:00:00+00\",infinity}").unwrap(),
            "[TimestampTz(1704067200, 0),Infinity(true)]"
        );
    }

    #[test]
    fn arrays_of_arrays_by_a_domain() {
        let inner = Decoder { decode: array, param: array_of(decode::int4, b',') };
        let outer = Param { element: Some(Arc::new(inner)), delimiter: b',', ..Param::default() };
        assert_eq!(show(&outer, array, br#"{"{1,2}",NULL,"{}"}"#).unwrap(), "[[I64(1),I64(2)],null,[]]");
    }

    #[test]
    fn hstores() {
        let p = Param::default();
        for (shown, want) in [
            ("", "{}"),
            (r#""k1"=>"v1", "k2"=>NULL"#, r#"{"k1":"v1","k2":null}"#),
            (r#""a b"=>"c,d", "q"=>"\"x\"""#, r#"{"a b":"c,d","q":"\"x\""}"#),
            (r#"""=>"", "\\"=>"NULL""#, r#"{"":"","\\":"NULL"}"#),
        ] {
            assert_eq!(show(&p, hstore, shown.as_bytes()).unwrap(), want, "{shown}");
        }
        for bad in [
            "k=>v",
            r#""k""#,
            r#""k"=>"#,
            r#""k"=>null"#,
            r#""k"=>"v","k2"=>NULL"#,
            r#""k"=>"v", "#,
            r#""k"=>"v"x"#,
            r#""k"=>NULLx"#,
        ] {
            assert!(show(&p, hstore, bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[derive(Clone, Debug)]
    enum Tree {
        Leaf(Option<String>),
        List(Vec<Tree>),
    }
    /// As `array_out` prints it: quotes when empty, NULL-like, or holding a character that means something.
    fn render(tree: &Tree, delimiter: char, out: &mut String) {
        match tree {
            Tree::Leaf(None) => out.push_str("NULL"),
            Tree::Leaf(Some(s)) => {
                let special = |c: char| {
                    matches!(c, '"' | '\\' | '{' | '}') || c == delimiter || c.is_ascii_whitespace() || c == '\u{b}'
                };
                if s.is_empty() || s.eq_ignore_ascii_case("null") || s.chars().any(special) {
                    out.push('"');
                    for c in s.chars() {
                        if matches!(c, '"' | '\\') {
                            out.push('\\');
                        }
                        out.push(c);
                    }
                    out.push('"');
                } else {
                    out.push_str(s);
                }
            }
            Tree::List(items) => {
                out.push('{');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(delimiter);
                    }
                    render(item, delimiter, out);
                }
                out.push('}');
            }
        }
    }
    fn expect(tree: &Tree) -> String {
        match tree {
            Tree::Leaf(None) => "null".into(),
            Tree::Leaf(Some(s)) => format!("{s:?}"),
            Tree::List(items) => format!("[{}]", items.iter().map(expect).collect::<Vec<_>>().join(",")),
        }
    }

    fn leaf() -> impl Strategy<Value = Tree> {
        prop_oneof![
            Just(Tree::Leaf(None)),
            Just(Tree::Leaf(Some("NULL".into()))),
            "[a-z\"\\\\{},; \n\tèß😀]{0,8}".prop_map(|s| Tree::Leaf(Some(s))),
        ]
    }

    proptest! {
        #[test]
        fn arrays_round_trip(
            rows in proptest::collection::vec(proptest::collection::vec(leaf(), 1..4), 0..4),
            deep in any::<bool>(), semicolon in any::<bool>(), bounds in any::<bool>(),
        ) {
            let tree = if deep {
                Tree::List(rows.into_iter().map(Tree::List).collect())
            } else {
                Tree::List(rows.into_iter().flatten().collect())
            };
            let delimiter = if semicolon { ';' } else { ',' };
            let mut text = if bounds { "[-1:2]=".to_owned() } else { String::new() };
            render(&tree, delimiter, &mut text);
            let param = array_of(decode::text, delimiter as u8);
            prop_assert_eq!(show(&param, array, text.as_bytes()).unwrap(), expect(&tree), "{}", text);
        }
        #[test]
        fn hstores_round_trip(pairs in proptest::collection::vec(("[a\"\\\\ ,=>è]{0,6}", proptest::option::of("[NUL\"\\\\ ,=>è]{0,6}")), 0..5)) {
            let quote = |s: &str| format!("\"{}\"", s.replace('\\', "\\\\").replace('"', "\\\""));
            let text = pairs.iter().map(|(k, v)| format!("{}=>{}", quote(k), v.as_deref().map_or("NULL".into(), quote))).collect::<Vec<_>>().join(", ");
            let want = pairs.iter().map(|(k, v)| format!("{k:?}:{}", v.as_ref().map_or("null".into(), |v| format!("{v:?}")))).collect::<Vec<_>>().join(",");
            prop_assert_eq!(show(&Param::default(), hstore, text.as_bytes()).unwrap(), format!("{{{want}}}"));
        }
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40), text in "[{}\",\\\\\\[\\]=:0-9aN>]{0,40}") {
            let p = array_of(decode::text, b',');
            for input in [&bytes[..], text.as_bytes()] {
                let _: Result<_> = show(&p, array, input);
                let _: Result<_> = show(&p, hstore, input);
            }
        }
    }
}
