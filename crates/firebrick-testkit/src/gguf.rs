//! GGUF files that tests make.

/// A GGUF file in the making, version 3: metadata and tensors of 32 bits.
///
/// ```
/// use firebrick_testkit::Gguf;
///
/// let bytes = Gguf::new("llama").number("llama.block_count", 1).tensor("x", &[1], &[0.5]).bytes();
/// assert!(bytes.starts_with(b"GGUF\x03\0\0\0\x01\0\0\0"));
/// ```
///
/// The format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.
#[derive(Clone, Debug, Default)]
pub struct Gguf {
    values: u64,
    metadata: Vec<u8>,
    tensors: u64,
    /// Name, shape, format and offset of each tensor.
    list: Vec<u8>,
    data: Vec<u8>,
}

/// Where tensors may begin.
const ALIGNMENT: usize = 32;

impl Gguf {
    /// A file of this architecture without anything else.
    pub fn new(architecture: &str) -> Self {
        Self::default().text("general.architecture", architecture)
    }

    /// A text.
    #[must_use]
    pub fn text(self, key: &str, value: &str) -> Self {
        self.value(key, 8, &text(value))
    }

    /// A whole number of 32 bits.
    #[must_use]
    pub fn number(self, key: &str, value: u32) -> Self {
        self.value(key, 4, &value.to_le_bytes())
    }

    /// A number of 32 bits.
    #[must_use]
    pub fn float(self, key: &str, value: f32) -> Self {
        self.value(key, 6, &value.to_le_bytes())
    }

    /// A truth value.
    #[must_use]
    pub fn flag(self, key: &str, value: bool) -> Self {
        self.value(key, 7, &[u8::from(value)])
    }

    /// A list of texts.
    #[must_use]
    pub fn texts<S: AsRef<str>>(self, key: &str, values: &[S]) -> Self {
        let texts = values.iter().flat_map(|value| text(value.as_ref())).collect::<Vec<_>>();
        self.list(key, 8, values.len(), &texts)
    }

    /// A list of whole numbers.
    #[must_use]
    pub fn numbers(self, key: &str, values: &[i32]) -> Self {
        let numbers = values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
        self.list(key, 5, values.len(), &numbers)
    }

    /// A tensor, the slowest dimension first.
    ///
    /// # Panics
    /// If the shape does not hold that many values.
    #[must_use]
    pub fn tensor(mut self, name: &str, shape: &[usize], values: &[f32]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "values for shape {shape:?}");
        self.tensors += 1;
        self.data.resize(self.data.len().next_multiple_of(ALIGNMENT), 0);
        self.list.extend(text(name));
        self.list.extend((shape.len() as u32).to_le_bytes());
        self.list.extend(shape.iter().rev().flat_map(|&size| (size as u64).to_le_bytes()));
        self.list.extend(0_u32.to_le_bytes());
        self.list.extend((self.data.len() as u64).to_le_bytes());
        self.data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        self
    }

    /// The bytes of the file.
    pub fn bytes(&self) -> Vec<u8> {
        let head = [&b"GGUF"[..], &3_u32.to_le_bytes(), &self.tensors.to_le_bytes(), &self.values.to_le_bytes()];
        let mut bytes = [&head.concat()[..], &self.metadata, &self.list].concat();
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes.extend_from_slice(&self.data);
        bytes
    }

    fn value(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.values += 1;
        self.metadata.extend(text(key));
        self.metadata.extend(kind.to_le_bytes());
        self.metadata.extend_from_slice(value);
        self
    }

    fn list(self, key: &str, kind: u32, count: usize, values: &[u8]) -> Self {
        self.value(key, 9, &[&kind.to_le_bytes()[..], &(count as u64).to_le_bytes(), values].concat())
    }
}

/// A text with its length before it.
fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}
