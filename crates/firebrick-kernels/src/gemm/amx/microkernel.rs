//! The unit, and the tiles of C that stay in its registers while the k index runs.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::sync::LazyLock;

use super::super::matrix::MatPtr;

/// Rows of a tile register, and pairs of a row.
pub(super) const TILE_ROWS: usize = 16;
/// Indices k of a block: those of a tile of A.
pub(super) const BLOCK: usize = 2 * TILE_ROWS;
/// Pairs of a tile register.
pub(super) const TILE_PAIRS: usize = TILE_ROWS * TILE_ROWS;
/// MR and NR: rows of A, and columns of B, whose tiles are multiplied together.
pub(in crate::gemm) const PANEL: usize = 2 * TILE_ROWS;

/// The unit of a processor that has one.
#[derive(Clone, Copy)]
pub(crate) struct Amx(());

impl Amx {
    /// It, if the processor has one and the system lets this process use it.
    pub(crate) fn get() -> Option<Self> {
        static AVAILABLE: LazyLock<bool> = LazyLock::new(|| {
            const TILES_AND_BF16: u32 = 1 << 24 | 1 << 22;
            const REQUEST: libc::c_long = 0x1023;
            const TILE_DATA: libc::c_long = 18;
            let vectors = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512bf16");
            if cfg!(miri) || !vectors || __cpuid_count(7, 0).edx & TILES_AND_BF16 != TILES_AND_BF16 {
                return false;
            }
            // SAFETY: asks the system for the unit's registers, for the whole process.
            unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) == 0 }
        });
        AVAILABLE.then_some(Self(()))
    }
}

/// The shapes of the tile registers, as `ldtilecfg` reads them.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// The tile registers as they are configured, for so many rows of A: four for C, two for either factor.
pub(super) struct TileConfig(usize);

impl TileConfig {
    /// Not configured yet.
    pub(super) fn new() -> Self {
        Self(0)
    }

    /// Configures them, where they are not yet.
    ///
    /// # Safety
    /// The unit is there; there are one to [`PANEL`] rows.
    unsafe fn load(&mut self, rows: usize) {
        // Of two tiles, one below the other, the upper one may stand alone.
        if self.0 == rows || rows == TILE_ROWS && self.0 > TILE_ROWS {
            return;
        }
        self.0 = rows;
        let (upper, all) = (rows.min(TILE_ROWS) as u8, TILE_ROWS as u8);
        let lower = rows.saturating_sub(TILE_ROWS).max(1) as u8;
        let mut shapes = Shapes { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        shapes.row_bytes[..8].fill(4 * TILE_ROWS as u16);
        shapes.rows[..8].copy_from_slice(&[upper, upper, lower, lower, upper, lower, all, all]);
        // SAFETY: the caller's; these are shapes that the unit has.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const shapes, options(nostack, readonly)) }
    }
}

impl Drop for TileConfig {
    fn drop(&mut self) {
        if self.0 > 0 {
            // SAFETY: they were configured, so the unit is there.
            unsafe { asm!("tilerelease", options(nostack, nomem)) }
        }
    }
}

/// C ← init + A B of [`PANEL`] columns: blocks of k, packed A, packed B, init, C.
type Microkernel = unsafe fn(usize, *const f32, *const f32, MatPtr<*const f32>, MatPtr<*mut f32>);

/// [`Microkernel`] of one tile of rows, or of two, one below the other.
macro_rules! microkernel {
    ($name:ident, $zero:expr, $init:expr, $block:expr, $store:expr) => {
        unsafe fn $name(
            blocks: usize,
            a: *const f32,
            b: *const f32,
            init: MatPtr<*const f32>,
            out: MatPtr<*mut f32>,
        ) {
            // SAFETY: the caller's: the registers are configured, and all that is read and written is there.
            unsafe {
                asm!(
                    "test {s}, {s}",
                    "jnz 2f",
                    $zero,
                    "jmp 3f",
                    "2:",
                    $init,
                    "3:",
                    "test {blocks}, {blocks}",
                    "jz 5f",
                    "4:",
                    $block,
                    "add {a}, 2048",
                    "add {b}, 2048",
                    "dec {blocks}",
                    "jnz 4b",
                    "5:",
                    $store,
                    blocks = inout(reg) blocks => _,
                    a = inout(reg) a => _,
                    b = inout(reg) b => _,
                    s = inout(reg) init.data => _,
                    s_row = inout(reg) init.stride * 4 => _,
                    c = inout(reg) out.data => _,
                    c_row = inout(reg) out.stride * 4 => _,
                    line = in(reg) 64_usize,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

microkernel!(
    one,
    "tilezero tmm0\n tilezero tmm1",
    "tileloadd tmm0, [{s} + {s_row}]\n tileloadd tmm1, [{s} + {s_row} + 64]",
    "tileloadd tmm4, [{a} + {line}]\n tileloadd tmm6, [{b} + {line}]\n tdpbf16ps tmm0, tmm4, tmm6\n
    tileloadd tmm7, [{b} + {line} + 1024]\n tdpbf16ps tmm1, tmm4, tmm7",
    "tilestored [{c} + {c_row}], tmm0\n tilestored [{c} + {c_row} + 64], tmm1"
);
microkernel!(
    two,
    "tilezero tmm0\n tilezero tmm1\n tilezero tmm2\n tilezero tmm3",
    "tileloadd tmm0, [{s} + {s_row}]\n tileloadd tmm1, [{s} + {s_row} + 64]
    shl {s_row}, 4\n add {s}, {s_row}\n shr {s_row}, 4
    tileloadd tmm2, [{s} + {s_row}]\n tileloadd tmm3, [{s} + {s_row} + 64]",
    "tileloadd tmm4, [{a} + {line}]\n tileloadd tmm6, [{b} + {line}]\n tdpbf16ps tmm0, tmm4, tmm6
    tileloadd tmm7, [{b} + {line} + 1024]\n tdpbf16ps tmm1, tmm4, tmm7
    tileloadd tmm5, [{a} + {line} + 1024]\n tdpbf16ps tmm2, tmm5, tmm6\n tdpbf16ps tmm3, tmm5, tmm7",
    "tilestored [{c} + {c_row}], tmm0\n tilestored [{c} + {c_row} + 64], tmm1
    shl {c_row}, 4\n add {c}, {c_row}\n shr {c_row}, 4
    tilestored [{c} + {c_row}], tmm2\n tilestored [{c} + {c_row} + 64], tmm3"
);

/// So many rows and columns of C, through memory of its own where there are fewer columns than a microkernel writes.
///
/// # Safety
/// The unit is there; the packed factors have these k, and the tile lies within C.
pub(super) unsafe fn tile(
    config: &mut TileConfig,
    [rows, columns]: [usize; 2],
    k: usize,
    [a, b]: [*const f32; 2],
    init: MatPtr<*const f32>,
    out: MatPtr<*mut f32>,
) {
    let microkernel: Microkernel = if rows > TILE_ROWS { two } else { one };
    let blocks = k.div_ceil(BLOCK);
    // SAFETY: the caller's.
    unsafe {
        config.load(rows);
        if columns == PANEL {
            return microkernel(blocks, a, b, init, out);
        }
        let mut whole = [0.0_f32; PANEL * PANEL];
        let buffer = MatPtr { data: whole.as_mut_ptr(), stride: PANEL };
        if !init.data.is_null() {
            init.copy(buffer, [rows, columns]);
        }
        microkernel(blocks, a, b, buffer.cast_const(), buffer);
        buffer.cast_const().copy(out, [rows, columns]);
    }
}
