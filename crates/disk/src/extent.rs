//! What a disk says about a range of itself.

/// What a range holds.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum State {
    /// Bytes are stored in this layer.
    Data,
    /// Reads as zero, by decision of this layer.
    Zero,
    /// This layer has nothing here: the backing layer decides, or it reads as zero.
    Absent,
}

/// One run of a disk in one state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Extent {
    /// Bytes, at least one.
    pub length: u64,
    /// What the run holds.
    pub state: State,
    /// Where the bytes lie plainly (neither compressed nor encrypted) in the layer below. Also
    /// given for [`State::Zero`] with storage kept.
    pub place: Option<u64>,
    /// Stored compressed.
    pub compressed: bool,
}

impl Extent {
    /// Plain data at `place` of the layer below.
    pub fn data(length: u64, place: u64) -> Self {
        Self { length, state: State::Data, place: Some(place), compressed: false }
    }

    /// Data that lies nowhere plainly: compressed, encrypted or computed.
    pub fn opaque(length: u64, compressed: bool) -> Self {
        Self { length, state: State::Data, place: None, compressed }
    }

    /// Zeroes.
    pub fn zero(length: u64) -> Self {
        Self { length, state: State::Zero, place: None, compressed: false }
    }

    /// Nothing in this layer.
    pub fn absent(length: u64) -> Self {
        Self { length, state: State::Absent, place: None, compressed: false }
    }

    /// The same run, cut to at most `length` bytes.
    #[must_use]
    pub fn cut(self, length: u64) -> Self {
        Self { length: self.length.min(length), ..self }
    }
}
