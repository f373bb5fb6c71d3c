//! What users write: configurations and the patterns in them.

use seachange::{
    config::{Registry, parse_apart},
    connectors::CONNECTORS,
    sink::property_faults,
};
use seachange_sdk::select::Pattern;

/// Tables, keys, values, references, patterns.
pub const TOKENS: &[&[u8]] = &[
    b"[kafka]\n",
    b"[server]\n",
    b"[pipeline.a.source]\n",
    b"[pipeline.a.format]\n",
    b"[pipeline.a.sink]\n",
    b"[pipeline.a.topics]\n",
    b"[pipeline.a.limits]\n",
    b"type = \"postgres\"\n",
    b"url = \"postgres://u@h/d\"\n",
    b"tables = [\"public.*\"]\n",
    b"= ",
    b"\"",
    b"\n",
    b"${env:A}",
    b"${file:/a}",
    b"$${",
    b"${",
    b"}",
    b"{pipeline}",
    b"{schema}",
    b"\"64MiB\"",
    b"\"10s\"",
    b"-1",
    b"9223372036854775807",
    b"0x7fffffffffffffff",
    b"1e400",
    b"nan",
    b"1979-05-27T07:32:00Z",
    b"[[",
    b"]]",
    b"''",
    b"\\u0000",
    b".",
    b"*",
    b"?",
    b"\"\"",
    b"\0",
    b"\xc3\xa9",
];

/// A configuration: refused with reasons or taken, never more than that. Nothing outside the text is read.
pub fn config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let registry = Registry { connectors: CONNECTORS, properties: &property_faults };
    match parse_apart("fuzz.toml", text, &registry) {
        Ok(config) => assert!(!config.pipelines.is_empty(), "a configuration that is taken does something"),
        Err(faults) => {
            assert!(!faults.faults.is_empty(), "what is refused has a reason");
            let lines = text.split('\n').count();
            for (line, fault) in &faults.faults {
                assert!(line.is_none_or(|l| l >= 1 && l <= lines), "a line of the file: {line:?} of {lines}");
                assert!(!fault.what.is_empty() && !fault.fix.is_empty(), "{fault:?}");
            }
            assert!(!faults.to_string().contains("\0unreadable"), "the stand-in for a value is never shown");
        }
    }
}

/// Input: a pattern and names, separated by zero bytes.
pub fn select(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let parts: Vec<&str> = text.split('\0').collect();
    let [pattern, names @ ..] = &parts[..] else { return };
    for count in [1, 2, 3] {
        let Ok(p) = Pattern::parse(pattern, count) else { continue };
        assert_eq!(p.text(), *pattern);
        p.matches(names);
        if p.is_literal() && !pattern.contains('"') {
            let own: Vec<&str> = pattern.split('.').collect();
            assert!(p.matches(&own), "what is written plainly matches itself");
        }
    }
    // Any name can be said in quotes, and then nothing else is meant.
    if let [a, b, ..] = names {
        let quoted = |s: &str| format!("\"{}\"", s.replace('"', "\"\""));
        let p = Pattern::parse(&format!("{}.{}", quoted(a), quoted(b)), 2).expect("quoted names are a pattern");
        assert!(p.is_literal() && p.matches(&[a, b]));
        assert_eq!(p.matches(&[b, a]), a == b);
        assert!(!p.matches(&[&format!("{a}x"), b]));
    }
}
