//! Which partition a record goes to: exactly as Kafka's Java producer decides it.
//!
//! A keyed record goes to `toPositive(murmur2(key)) % partitions`. That is what Kafka Connect, and so Debezium, does, and
//! consumers that join topics by partition rely on it. librdkafka's default partitioner is another one (CRC32), and its
//! `murmur2_random` scatters records without a key, so partitions are chosen here and handed to it.
//!
//! Records without a key (tables without one, messages, transaction metadata) all go to the partition that the *topic's
//! name* hashes to: a topic without keys keeps its order, and several such topics do not all meet in partition 0.

/// The 32-bit murmur2 of Kafka's `Utils.murmur2`: seed `0x9747b28c`, little-endian words.
pub fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let mut h = 0x9747_b28c_u32 ^ data.len() as u32;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word);
        k = k.wrapping_mul(M);
        k ^= k >> R;
        k = k.wrapping_mul(M);
        h = h.wrapping_mul(M) ^ k;
    }
    if !tail.is_empty() {
        for (i, byte) in tail.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

/// The partition of a key among `partitions` (at least one).
#[inline]
pub fn partition(key: &[u8], partitions: i32) -> i32 {
    // Java's toPositive clears the sign bit, so the remainder of two non-negative numbers is in range.
    ((murmur2(key) & 0x7fff_ffff) as i32) % partitions.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_kafkas_own_vectors() {
        // From Kafka's UtilsTest.testMurmur2.
        for (key, hash) in [
            ("21", -973932308_i32),
            ("foobar", -790332482),
            ("a-little-bit-long-string", -985981536),
            ("a-little-bit-longer-string", -1486304829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
            ("abc", 479470107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
        assert_eq!(murmur2(b"") as i32, 275646681);
    }

    #[test]
    fn equals_where_kafkas_console_producer_put_them() {
        // Written by Kafka 4.4's Java producer into a topic of seven partitions.
        for (key, at) in [
            (r#"{"id":1}"#, 3),
            (r#"{"id":2}"#, 5),
            (r#"{"id":3}"#, 4),
            (r#"{"id":42}"#, 4),
            (r#"{"id":1000}"#, 3),
            (r#"{"id":123456}"#, 0),
            (r#"{"id":"ü"}"#, 1),
            (r#"{"a":1,"b":"x"}"#, 3),
        ] {
            assert_eq!(partition(key.as_bytes(), 7), at, "{key}");
        }
    }

    #[test]
    fn stays_in_range() {
        for n in [1, 2, 3, 12, 1000] {
            for i in 0..1000_u32 {
                assert!((0..n).contains(&partition(&i.to_be_bytes(), n)));
            }
        }
        assert_eq!(partition(b"x", 0), 0);
    }
}
