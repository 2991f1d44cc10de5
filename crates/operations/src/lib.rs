//! Convert, copy, compare, measure, commit, rebase and the like, with progress
