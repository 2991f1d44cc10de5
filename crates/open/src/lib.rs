//! Addresses and image options to layer stacks: probing, chains, gates
