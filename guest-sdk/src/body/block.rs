//! Sixty-four bytes of JSON at a time, as masks of bits: the first byte's is the lowest.
//!
//! The method is that of simdjson (Langdale and Lemire, *Parsing gigabytes of JSON per second*, 2019). In the sandbox
//! the vectors are WebAssembly's own (`backstop policy build` allows them), natively those of the machine.

use wide::u8x16;

/// Sixty-four bytes.
pub(super) struct Block([u8x16; 4]);

impl Block {
    pub(super) const LENGTH: usize = 64;

    /// The first block of `text`, filled up with blanks if there is less of it, and what comes after.
    pub(super) fn first_of(text: &[u8]) -> (Self, &[u8]) {
        if let Some((block, further)) = text.split_first_chunk() {
            return (Self::of(block), further);
        }
        let mut block = [b' '; Self::LENGTH];
        for (filled, byte) in block.iter_mut().zip(text) {
            *filled = *byte;
        }
        (Self::of(&block), &[])
    }

    fn of(block: &[u8; Self::LENGTH]) -> Self {
        let (vectors, _) = block.as_chunks::<16>();
        let mut filled = [u8x16::default(); 4];
        for (filled, vector) in filled.iter_mut().zip(vectors) {
            *filled = u8x16::new(*vector);
        }
        Self(filled)
    }

    /// Where it has this byte.
    pub(super) fn equal_to(&self, byte: u8) -> u64 {
        let byte = u8x16::splat(byte);
        let [a, b, c, d] = self.0.map(|vector| u64::from(vector.simd_eq(byte).to_bitmask()));
        a | b << 16 | c << 32 | d << 48
    }
}

/// Follows strings from block to block, beginning outside of one.
#[derive(Default)]
pub(super) struct Strings {
    /// Whether the next block begins within a string: all bits or none.
    within: u64,
    /// Whether its first byte is escaped: the lowest bit.
    escaped: u64,
}

impl Strings {
    /// Which bytes of the next block are within a string, its opening quote included and its closing one not.
    pub(super) fn inside(&mut self, block: &Block) -> u64 {
        let escaped = self.escaped(block.equal_to(b'\\'));
        let inside = parity(block.equal_to(b'"') & !escaped) ^ self.within;
        self.within = 0_u64.wrapping_sub(inside >> 63);
        inside
    }

    /// Which bytes are escaped: of a run of backslashes every second one, and what follows a run of an odd length.
    fn escaped(&mut self, backslashes: u64) -> u64 {
        if backslashes == 0 {
            return std::mem::take(&mut self.escaped);
        }
        const ODD: u64 = 0xaaaa_aaaa_aaaa_aaaa;
        // A backslash that is escaped itself begins no escape.
        let begins = backslashes & !self.escaped;
        // Subtraction carries through each run; what differs from the plain alternation after it was an odd one.
        let codes = ((begins << 1) | ODD).wrapping_sub(begins) ^ ODD;
        let escaped = codes ^ (backslashes | self.escaped);
        self.escaped = (codes & backslashes) >> 63;
        escaped
    }
}

/// For each bit, whether an odd number of bits is set up to it and itself.
fn parity(bits: u64) -> u64 {
    let mut parity = bits;
    for shift in [1, 2, 4, 8, 16, 32] {
        parity ^= parity << shift;
    }
    parity
}

/// Where a byte stands first.
#[inline]
pub(crate) fn position(text: &[u8], byte: u8) -> Option<usize> {
    position_of_either(text, byte, byte)
}

/// Where the first of two bytes stands.
pub(crate) fn position_of_either(text: &[u8], one: u8, other: u8) -> Option<usize> {
    let mut rest = text;
    while let Some((vector, further)) = rest.split_first_chunk() {
        let vector = u8x16::new(*vector);
        let found = (vector.simd_eq(u8x16::splat(one)) | vector.simd_eq(u8x16::splat(other))).to_bitmask();
        if found != 0 {
            return Some(text.len() - rest.len() + usize::try_from(found.trailing_zeros()).ok()?);
        }
        rest = further;
    }
    let found = rest.iter().position(|byte| *byte == one || *byte == other)?;
    Some(text.len() - rest.len() + found)
}

/// Whether two texts are the same. In the sandbox, `==` looks at one byte after the other.
#[inline]
pub(crate) fn same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    match one.len() {
        // The first bytes and the last ones, which overlap.
        8..=16 => ends::<8>(one) == ends(other),
        4..=7 => ends::<4>(one) == ends(other),
        _ => one == other,
    }
}

fn ends<const N: usize>(text: &[u8]) -> Option<(&[u8; N], &[u8; N])> {
    Some((text.first_chunk()?, text.last_chunk()?))
}
