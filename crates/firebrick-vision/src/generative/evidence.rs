//! Images of which a part is seen, and what is asked of them.

use burn::tensor::Tensor;

use crate::Error;

/// What is known of some images.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// `[batch, height, width, channels]`, numbers from 0 to 1.
    pub images: Tensor<4>,
    /// 1 where a pixel is seen and 0 where it is not, `[batch, height, width, 1]`; what the image holds there does not count.
    pub visible: Tensor<4>,
}

impl Evidence {
    /// # Errors
    /// If images are not of this size, or the mask is not of theirs.
    pub(crate) fn checked(&self, expected: [usize; 3]) -> Result<(), Error> {
        let [batch, height, width, channels] = self.images.dims();
        if [height, width, channels] != expected {
            return Err(Error::Size { found: [height, width, channels], expected });
        }
        let [masks, down, across, _] = self.visible.dims();
        if [masks, down, across] != [batch, height, width] {
            return Err(Error::Mask { found: [down, across], expected: [height, width] });
        }
        Ok(())
    }
}

/// What is asked about the label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// Which it is.
    Free,
    /// It is this one, of each image.
    Clamp(Vec<usize>),
}

/// The seen pixels, and those of a filling elsewhere.
///
/// # Panics
/// If the filling is of another size.
pub fn filled(evidence: &Evidence, filling: Tensor<4>) -> Tensor<4> {
    let hidden = evidence.visible.clone().neg() + 1.0;
    evidence.images.clone() * evidence.visible.clone() + filling * hidden
}

/// The label of each picture: the best one, or the one that is asked about.
///
/// # Errors
/// If that is no class.
pub(crate) fn labels(scores: &Tensor<2>, query: &Query) -> Result<Vec<usize>, Error> {
    let [_, classes] = scores.dims();
    match query {
        Query::Free => Ok(scores.clone().argmax(1).into_data().iter::<i64>().map(|label| label as usize).collect()),
        Query::Clamp(labels) => match labels.iter().find(|label| **label >= classes) {
            Some(&class) => Err(Error::Class { class, classes }),
            None => Ok(labels.clone()),
        },
    }
}
