//! Other processors have no matrix unit.

use std::mem::MaybeUninit;
use std::ops::Range;

use half::bf16;

use super::im2col::Patches;
use super::matrix::{Init, MatPtr, Matrix};
use super::microkernel::Operand;

pub(super) const PANEL: usize = 1;

pub(super) fn panel_length(k: usize) -> usize {
    k
}

/// There is none.
#[derive(Clone, Copy)]
pub(crate) enum Amx {}

impl Amx {
    pub(crate) fn get() -> Option<Self> {
        None
    }

    pub(super) unsafe fn serial<T: Operand>(
        self,
        _: MatPtr<*mut f32>,
        _: MatPtr<*const f32>,
        _: Matrix<'_>,
        _: Matrix<'_, T>,
    ) {
        match self {}
    }

    pub(super) fn prepack<T: Operand>(self, _: Matrix<'_, T>) -> (Vec<f32>, usize) {
        match self {}
    }

    pub(super) unsafe fn prepacked(
        self,
        _: MatPtr<*mut f32>,
        _: MatPtr<*const f32>,
        _: Matrix<'_>,
        _: &[f32],
        _: usize,
    ) {
        match self {}
    }

    pub(crate) fn round(self, _: &[f32], _: &mut [bf16]) {
        match self {}
    }

    pub(crate) fn pack_weights(self, _: &[f32], _: usize, _: usize, _: usize) -> Vec<f32> {
        match self {}
    }

    pub(crate) fn write_product_of_patches(
        self,
        _: &mut [MaybeUninit<f32>],
        _: Init<'_>,
        patches: Patches<'_>,
        _: &[f32],
        _: usize,
    ) {
        patches.check();
        match self {}
    }

    pub(crate) fn accumulate_transposed_product_of_patches(
        self,
        _: &mut [f32],
        _: Matrix<'_>,
        patches: Patches<'_>,
        _: Range<usize>,
    ) {
        patches.check();
        match self {}
    }
}
