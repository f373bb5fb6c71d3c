//! As much of pgoutput as is needed to hold a streamed row against a chunk: relations and inserts.

use seachange_postgres::catalog::{RelationColumn, RelationInfo};
use std::collections::HashMap;

/// A streamed insert.
pub struct Insert {
    pub relation: RelationInfo,
    pub cells: Vec<Option<Vec<u8>>>,
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let (head, rest) = self.0.split_first_chunk::<N>().unwrap();
        self.0 = rest;
        *head
    }
    fn text(&mut self) -> String {
        let end = self.0.iter().position(|b| *b == 0).unwrap();
        let s = String::from_utf8(self.0[..end].to_vec()).unwrap();
        self.0 = &self.0[end + 1..];
        s
    }
}

/// Reads messages in order; inserts come out.
pub fn inserts(messages: impl Iterator<Item = Vec<u8>>) -> Vec<Insert> {
    let mut relations: HashMap<u32, RelationInfo> = HashMap::new();
    let mut out = Vec::new();
    for message in messages {
        let mut r = Reader(&message[1..]);
        match message[0] {
            b'R' => {
                let oid = u32::from_be_bytes(r.bytes());
                let (schema, name) = (r.text(), r.text());
                let [identity] = r.bytes();
                let columns = (0..u16::from_be_bytes(r.bytes()))
                    .map(|_| {
                        let [flags] = r.bytes();
                        RelationColumn {
                            name: r.text(),
                            type_oid: u32::from_be_bytes(r.bytes()),
                            typmod: i32::from_be_bytes(r.bytes()),
                            in_identity: flags & 1 == 1,
                        }
                    })
                    .collect();
                relations.insert(oid, RelationInfo { oid, schema, name, identity, columns });
            }
            b'I' => {
                let oid = u32::from_be_bytes(r.bytes());
                assert_eq!(r.bytes(), [b'N']);
                let cells = (0..u16::from_be_bytes(r.bytes()))
                    .map(|_| match r.bytes() {
                        [b'n'] => None,
                        [b't'] => {
                            let n = u32::from_be_bytes(r.bytes()) as usize;
                            let (value, rest) = r.0.split_at(n);
                            r.0 = rest;
                            Some(value.to_vec())
                        }
                        [other] => panic!("a cell of kind {other}"),
                    })
                    .collect();
                out.push(Insert { relation: relations[&oid].clone(), cells });
            }
            _ => {}
        }
    }
    out
}
