//! JSON as bytes: what a parsed value no longer tells, such as the order of fields.

/// The names of all objects in a JSON text, in order, with their depth.
pub fn names(text: &str) -> Vec<(usize, String)> {
    let bytes = text.as_bytes();
    let (mut found, mut depth, mut i) = (Vec::new(), 0usize, 0usize);
    while i < bytes.len() {
        match bytes[i] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b'"' => {
                let end = string_end(bytes, i);
                let rest = text[end..].trim_start();
                if rest.starts_with(':') {
                    found.push((depth, serde_json::from_str(&text[i..end]).expect("a JSON string")));
                }
                i = end;
                continue;
            }
            _ => {}
        }
        i += 1;
    }
    found
}

/// Where the string that begins at `start` has ended.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut i = start + 1;
    while bytes[i] != b'"' {
        i += if bytes[i] == b'\\' { 2 } else { 1 };
    }
    i + 1
}

/// The text of a field of the outermost object.
pub fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let bytes = text.as_bytes();
    let (mut depth, mut i) = (0usize, 0usize);
    while i < bytes.len() {
        match bytes[i] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b'"' => {
                let end = string_end(bytes, i);
                if depth == 1 && bytes.get(end) == Some(&b':') && text[i + 1..end - 1] == *name {
                    return Some(&text[end + 1..value_end(bytes, end + 1)]);
                }
                i = end;
                continue;
            }
            _ => {}
        }
        i += 1;
    }
    None
}

fn value_end(bytes: &[u8], start: usize) -> usize {
    let (mut depth, mut i) = (0usize, start);
    loop {
        match bytes[i] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return i,
            b'}' | b']' => depth -= 1,
            b',' if depth == 0 => return i,
            b'"' => {
                i = string_end(bytes, i);
                continue;
            }
            _ => {}
        }
        i += 1;
    }
}

#[test]
fn texts_are_taken_apart() {
    let text = r#"{"a":{"b\"":[1,{"c":"}"}]},"d":null,"after":{"x":"a,\"b"}}"#;
    let found: Vec<_> = names(text).into_iter().map(|(d, n)| format!("{d}{n}")).collect();
    assert_eq!(found, ["1a", "2b\"", "4c", "1d", "1after", "2x"]);
    assert_eq!(field(text, "after"), Some(r#"{"x":"a,\"b"}"#));
    assert_eq!(field(text, "d"), Some("null"));
    assert_eq!(field(text, "x"), None);
}
