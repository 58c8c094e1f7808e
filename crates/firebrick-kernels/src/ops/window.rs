//! Windows over images whose pixels hold their channels side by side.

#[cfg(feature = "flex")]
use burn::backend::flex::FlexTensor;

#[cfg(feature = "flex")]
use crate::flex::dims;

/// A square window, and how it moves over an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Pixels on each side.
    pub size: usize,
    /// Pixels from one place to the next.
    pub stride: usize,
    /// Pixels that it may reach beyond each edge.
    pub padding: usize,
}

impl Window {
    /// How many places it has along a side of this many pixels.
    ///
    /// ```text
    /// ⌊(length + 2 padding − size) / stride⌋ + 1
    /// ```
    ///
    /// # Panics
    /// If it fits nowhere, or does not move.
    pub fn places(&self, length: usize) -> usize {
        self.check(length);
        (length + 2 * self.padding - self.size) / self.stride + 1
    }

    /// Holds the window within a side of this many pixels.
    pub(super) fn check(&self, length: usize) {
        let Self { size, stride, padding } = *self;
        assert!(size > 0 && stride > 0, "a window of {size} pixels that moves by {stride}");
        assert!(length + 2 * padding >= size, "a window of {size} pixels on {length} and twice {padding}");
    }
}

/// Images of one size, and the window that moves over them.
#[cfg(feature = "flex")]
#[derive(Clone, Copy, Debug)]
pub(super) struct Images {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
    pub(super) window: Window,
    /// Rows and columns of places of the window.
    pub(super) places: [usize; 2],
}

#[cfg(feature = "flex")]
impl Images {
    /// Of a tensor `[batch, height, width, channels]`.
    pub(super) fn of(x: &FlexTensor, window: Window) -> Self {
        let [height, width, channels] = [1, 2, 3].map(|axis| dims(x)[axis]);
        Self { height, width, channels, window, places: [height, width].map(|length| window.places(length)) }
    }

    /// Numbers of an image.
    pub(super) fn numbers(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Places of the window on an image.
    pub(super) fn windows(&self) -> usize {
        self.places[0] * self.places[1]
    }

    /// Calls `f` for every row of pixels of every window that lies at least partly on the image: the window's number, and where its
    /// numbers on the image begin and end.
    #[inline(always)]
    pub(super) fn for_each_row(&self, mut f: impl FnMut(usize, std::ops::Range<usize>)) {
        let Self { height, width, channels, window: Window { size, stride, padding }, places: [down, across], .. } =
            *self;
        for window in 0..down * across {
            let (top, left) = (window / across * stride, window % across * stride);
            let columns = left.max(padding)..(left + size).min(width + padding);
            for row in 0..size {
                if (padding..height + padding).contains(&(top + row)) && !columns.is_empty() {
                    let begin = ((top + row - padding) * width + columns.start - padding) * channels;
                    f(window, begin..begin + columns.len() * channels);
                }
            }
        }
    }
}
