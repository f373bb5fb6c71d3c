//! Seeded mutation: the same seed gives the same inputs on every machine.

use crate::LENGTH_MAX;

/// Numbers at which code goes wrong.
const EDGES: &[u64] =
    &[0, 1, 2, 7, 8, 127, 128, 255, 256, 32_767, 32_768, 65_535, 1 << 31, (1 << 31) - 1, u32::MAX as u64];

/// Makes inputs out of others.
#[derive(Debug)]
pub struct Mutator {
    state: u64,
}

impl Mutator {
    /// A mutator whose every choice follows from the seed.
    pub fn new(seed: u64) -> Mutator {
        Mutator { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 }
    }

    fn next(&mut self) -> u64 {
        // xorshift64*
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `n`; 0 when `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { (self.next() >> 16) as usize % n }
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }

    /// One of the corpus, changed in a few places. `tokens` are pieces that mean something to the target.
    pub fn input(&mut self, corpus: &[Vec<u8>], tokens: &[&[u8]], out: &mut Vec<u8>) {
        out.clear();
        if let Some(first) = self.pick(corpus) {
            out.extend_from_slice(first);
        }
        for _ in 0..1 + self.below(5) {
            self.change(corpus, tokens, out);
        }
        out.truncate(LENGTH_MAX);
    }

    fn insert(&mut self, out: &mut Vec<u8>, piece: &[u8]) {
        let at = self.below(out.len() + 1);
        out.splice(at..at, piece.iter().copied());
    }

    fn range(&mut self, len: usize, most: usize) -> std::ops::Range<usize> {
        let from = self.below(len);
        from..(from + 1 + self.below(most)).min(len)
    }

    fn change(&mut self, corpus: &[Vec<u8>], tokens: &[&[u8]], out: &mut Vec<u8>) {
        let at = self.below(out.len());
        match self.below(14) {
            0 | 1 => {
                if let Some(b) = out.get_mut(at) {
                    *b ^= 1 << (self.next() >> 32 & 7);
                }
            }
            2 => {
                if let Some(b) = out.get_mut(at) {
                    *b = (self.next() >> 24) as u8;
                }
            }
            3 => {
                // A digit or letter for another.
                if let Some(b) = out.get_mut(at) {
                    *b = b.wrapping_add([1, 255, 10, 246][self.below(4)]);
                }
            }
            4 => {
                let piece: Vec<u8> = (0..1 + self.below(8)).map(|_| (self.next() >> 24) as u8).collect();
                self.insert(out, &piece);
            }
            5 | 6 => {
                if let Some(token) = self.pick(tokens) {
                    self.insert(out, token);
                }
            }
            7 => {
                if let Some(token) = self.pick(tokens) {
                    let end = (at + token.len()).min(out.len());
                    out.splice(at..end, token.iter().copied());
                }
            }
            8 => {
                let gone = self.range(out.len(), 16);
                out.drain(gone);
            }
            9 => {
                let kept = self.range(out.len(), 64);
                let piece = out[kept].to_vec();
                self.insert(out, &piece);
            }
            10 => {
                // The front of one, the back of another.
                if let Some(other) = self.pick(corpus) {
                    let from = self.below(other.len());
                    out.truncate(at);
                    out.extend_from_slice(&other[from..]);
                }
            }
            11 => {
                if let Some(other) = self.pick(corpus) {
                    let piece = other[self.range(other.len(), 64)].to_vec();
                    self.insert(out, &piece);
                }
            }
            12 => {
                // A number of 2, 4 or 8 bytes, as both ends write it.
                let n = EDGES[self.below(EDGES.len())].wrapping_sub(self.next() >> 60 & 1);
                let width = [2, 4, 8][self.below(3)];
                let bytes = if self.below(2) == 0 {
                    n.to_be_bytes()[8 - width..].to_vec()
                } else {
                    n.to_le_bytes()[..width].to_vec()
                };
                let end = (at + width).min(out.len());
                out.splice(at..end, bytes);
            }
            _ => out.truncate(at),
        }
    }
}
