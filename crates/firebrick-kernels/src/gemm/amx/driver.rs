//! The loops around the unit's microkernel.

use super::super::matrix::{MatPtr, Matrix};
use super::super::microkernel::Operand;
use super::microkernel::{Amx, PANEL, TileConfig, tile};
use super::pack::{self, BUFFERS, panel_length};

/// Indices k that are packed in one go: a panel of A then stays in the nearest cache.
const KC: usize = 512;
/// Columns of B that are packed together, and stay in the next one.
const NC: usize = 1024;

impl Amx {
    /// A product on this thread.
    ///
    /// # Safety
    /// The factors lie in their slices and C has these rows and columns; nothing else uses C meanwhile.
    pub(in crate::gemm) unsafe fn serial<T: Operand>(
        self,
        out: MatPtr<*mut f32>,
        init: MatPtr<*const f32>,
        a: Matrix<'_>,
        b: Matrix<'_, T>,
    ) {
        // Few rows use a panel up at once: it need not outlive the nearest cache.
        let nc = if a.rows <= 2 * PANEL { PANEL } else { NC };
        let mut config = TileConfig::new();
        BUFFERS.with_borrow_mut(|[a_packed, b_packed]| {
            for pc in (0..a.columns.max(1)).step_by(KC) {
                let kc = KC.min(a.columns - pc);
                let init = if pc == 0 { init } else { out.cast_const() };
                let (a, b) = (a.split_columns(pc).1.split_columns(kc).0, b.split_rows(pc).1.split_rows(kc).0);
                // SAFETY: the caller's; the tiles lie within C.
                unsafe {
                    a_packed.pack::<_, false>(a);
                    for jc in (0..b.columns).step_by(nc) {
                        let b = b.split_columns(jc).1;
                        let b = b.split_columns(nc.min(b.columns)).0;
                        b_packed.pack::<_, true>(b.transposed());
                        for ir in (0..a.rows).step_by(PANEL) {
                            for jr in (0..b.columns).step_by(PANEL) {
                                let factors = [a_packed.panel(ir, kc), b_packed.panel(jr, kc)];
                                let (init, out) = (init.at(ir, jc + jr), out.at(ir, jc + jr));
                                let shape = [a.rows - ir, b.columns - jr].map(|length| length.min(PANEL));
                                tile(&mut config, shape, kc, factors, init, out);
                            }
                        }
                    }
                }
            }
        });
    }

    /// All columns of B packed: the panels, and how many there are.
    pub(in crate::gemm) fn prepack<T: Operand>(self, b: Matrix<'_, T>) -> (Vec<f32>, usize) {
        let count = b.columns.div_ceil(PANEL);
        let mut panels = vec![0.0; count * panel_length(b.rows)];
        // SAFETY: there is room for all of it.
        unsafe { pack::panels::<T, true>(panels.as_mut_ptr(), b.transposed()) }
        (panels, count)
    }

    /// The product of a few rows and the columns of packed panels, on this thread.
    ///
    /// # Safety
    /// As [`Amx::serial`]; there are as many panels as the columns need.
    pub(in crate::gemm) unsafe fn prepacked(
        self,
        out: MatPtr<*mut f32>,
        init: MatPtr<*const f32>,
        a: Matrix<'_>,
        panels: &[f32],
        columns: usize,
    ) {
        let mut config = TileConfig::new();
        BUFFERS.with_borrow_mut(|[a_packed, _]| {
            // SAFETY: the caller's; the tiles lie within C.
            unsafe {
                a_packed.pack::<_, false>(a);
                for jr in (0..columns).step_by(PANEL) {
                    let panel = panels[jr / PANEL * panel_length(a.columns)..].as_ptr();
                    for ir in (0..a.rows).step_by(PANEL) {
                        let (init, out) = (init.at(ir, jr), out.at(ir, jr));
                        let shape = [a.rows - ir, columns - jr].map(|length| length.min(PANEL));
                        tile(&mut config, shape, a.columns, [a_packed.panel(ir, a.columns), panel], init, out);
                    }
                }
            }
        });
    }
}
