//! Other processors have no matrix unit.

use std::mem::MaybeUninit;
use std::ops::Range;

use half::bf16;

use super::{Element, Matrix, Patches, Place, Start};

pub(super) const LINES: usize = 1;

pub(super) fn length(links: usize) -> usize {
    links
}

/// There is none.
#[derive(Clone, Copy)]
pub(in crate::flex) enum Unit {}

impl Unit {
    pub(in crate::flex) fn get() -> Option<Self> {
        None
    }

    pub(super) unsafe fn alone<T: Element>(
        self,
        _: Place<*mut f32>,
        _: Place<*const f32>,
        _: Matrix<'_>,
        _: Matrix<'_, T>,
    ) {
        match self {}
    }

    pub(super) fn laid_out<T: Element>(self, _: Matrix<'_, T>) -> (Vec<f32>, usize) {
        match self {}
    }

    pub(super) unsafe fn panelled(self, _: Place<*mut f32>, _: Place<*const f32>, _: Matrix<'_>, _: &[f32], _: usize) {
        match self {}
    }

    pub(in crate::flex) fn round(self, _: &[f32], _: &mut [bf16]) {
        match self {}
    }

    pub(in crate::flex) fn lay_weights(self, _: &[f32], _: usize, _: usize, _: usize) -> Vec<f32> {
        match self {}
    }

    pub(in crate::flex) fn place_product_of_patches(
        self,
        _: &mut [MaybeUninit<f32>],
        _: Start<'_>,
        patches: Patches<'_>,
        _: &[f32],
        _: usize,
    ) {
        patches.check();
        match self {}
    }

    pub(in crate::flex) fn add_turned_product_of_patches(
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
