//! Grid formats (IQ1, IQ2, IQ3): the decoders' small integers, shifted to unsigned.

use super::{Scales, Unpack};
use crate::isa::Isa;
use quantrs_blocks::decoding::*;

/// Formats that share everything but the unpacking of a block to signed bytes within -64..=63 and a scale per 16.
macro_rules! grids {
    ($($name:ident: $bytes:literal bytes, $unpack:ident;)*) => {$(
        pub(crate) struct $name;
        impl Unpack for $name {
            const BLOCK_LEN: usize = 256;
            const BLOCK_BYTES: usize = $bytes;
            const GROUP: usize = 16;
            const OFFSET: u8 = 64;
            const MINS: bool = false;
            const BYTE: bool = false;
            type State = [[u64; 4]; 8];

            #[inline(always)]
            fn scales<M: Isa>(_: M, b: &[u8], _: usize, out: &mut Scales) -> Self::State {
                let unpacked = $unpack(&b[..$bytes]);
                out.s = unpacked.scales;
                let mut codes = [[0; 4]; 8];
                codes.as_flattened_mut().copy_from_slice(&unpacked.groups);
                codes
            }
            #[inline(always)]
            fn codes<M: Isa>(m: M, state: &Self::State, _: &[u8], i: usize) -> M::B {
                m.add_bytes(m.set_bytes(state[i]), m.splat_byte(64))
            }
        }
    )*};
}

grids! {
    Iq1S: 50 bytes, unpack_iq1_s;
    Iq1M: 56 bytes, unpack_iq1_m;
    Iq2Xxs: 66 bytes, unpack_iq2_xxs;
    Iq2Xs: 74 bytes, unpack_iq2_xs;
    Iq2S: 82 bytes, unpack_iq2_s;
    Iq3Xxs: 98 bytes, unpack_iq3_xxs;
    Iq3S: 110 bytes, unpack_iq3_s;
}
