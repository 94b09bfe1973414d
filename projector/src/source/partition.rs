//! Which partition an aggregate's events are in: the default partitioner of Kafka's Java clients, which Connect uses.

/// The partition of a key, as `org.apache.kafka.clients.producer.internals.BuiltInPartitioner` gives it.
#[must_use]
pub fn partition_of(key: &str, partitions: i32) -> i32 {
    debug_assert!(partitions > 0, "a topic has partitions");
    (murmur2(key.as_bytes()) & 0x7fff_ffff) % partitions.max(1)
}

/// `org.apache.kafka.common.utils.Utils.murmur2`, wrapping arithmetic and the fixed seed included.
fn murmur2(data: &[u8]) -> i32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    // Kafka's lengths fit 32 bits; a key never comes near.
    #[allow(clippy::cast_possible_truncation)]
    let mut h = SEED ^ data.len() as u32;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let k = u32::from_le_bytes(*word).wrapping_mul(M);
        let k = (k ^ (k >> 24)).wrapping_mul(M);
        h = h.wrapping_mul(M) ^ k;
    }
    if !rest.is_empty() {
        h = rest.iter().enumerate().fold(h, |h, (i, byte)| h ^ (u32::from(*byte) << (8 * i))).wrapping_mul(M);
    }
    h = (h ^ (h >> 13)).wrapping_mul(M);
    (h ^ (h >> 15)).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cases of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn hashes_as_kafka_does() {
        let cases = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (key, hash) in cases {
            assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
        }
    }

    #[test]
    fn a_negative_hash_gives_a_partition_too() {
        assert_eq!(partition_of("21", 12), (-973_932_308_i32 & 0x7fff_ffff) % 12);
        assert!((0..1000).all(|n| (0..12).contains(&partition_of(&n.to_string(), 12))));
    }
}
