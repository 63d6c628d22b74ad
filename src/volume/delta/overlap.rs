//! What a new file has in common with files that lie here, by their recipes. Pure; where the length of single
//! chunks is needed, it is asked for.

use std::ops::Range;

use crate::content::{Recipe, Term};

/// Of terms of one block so many are looked at, the first candidates' first: files of models have a few.
const MAX_TERMS_OF_BLOCK: usize = 256;
/// Terms that are remembered in all: six megabytes.
const MAX_TERMS: usize = 100_000;

/// A run of chunks of a file that lies here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalTerm {
    pub block: [u8; 32],
    pub chunks: Range<u32>,
    /// Bytes.
    pub len: u32,
    /// The number of the file: the lower, the rather it is copied from.
    pub file: u32,
    /// Where the run begins in the file.
    pub at: u64,
}

/// Bytes that a new file has in common with one that lies here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Where they go in the new file.
    pub to: u64,
    pub len: u64,
    /// The number of the file that has them.
    pub from: usize,
    /// Where they lie in it.
    pub at: u64,
}

/// All runs of chunks that lie here, by their blocks.
#[derive(Debug, Default)]
pub struct LocalTerms(Vec<LocalTerm>);

/// The lengths of the chunks of a term, by looking at its bytes; none if they cannot be told.
pub type AskLengths<'a> = dyn FnMut(&LocalTerm) -> Option<Vec<u32>> + 'a;

impl LocalTerms {
    /// Adds what file number `file` is made of, unless that is not `size` bytes or too much in all.
    pub fn add(&mut self, file: usize, size: u64, recipe: Recipe) {
        let Ok(file) = u32::try_from(file) else { return };
        if !makes(&recipe, size) || self.0.len() + recipe.terms.len() > MAX_TERMS {
            return;
        }
        self.0.reserve_exact(recipe.terms.len());
        let mut at = 0_u64;
        for Term { block, chunks, len } in recipe.terms {
            if !chunks.is_empty() && len > 0 {
                self.0.push(LocalTerm { block, chunks, len, file, at });
            }
            at += u64::from(len);
        }
    }

    /// To be called when all are added, and before anything is looked for.
    pub fn sort(&mut self) {
        // A run that comes again and again, such as one of zeros, is one.
        let key = |term: &LocalTerm| (term.block, term.chunks.start, term.chunks.end);
        self.0.sort_unstable_by_key(|term| (key(term), term.file, term.at));
        self.0.dedup_by_key(|term| key(term));
        self.0.sort_unstable_by_key(|term| (term.block, term.file, term.at));
    }

    /// Those of one block, in the order of preference.
    fn of_block(&self, block: &[u8; 32]) -> &[LocalTerm] {
        let first = self.0.partition_point(|term| term.block < *block);
        let same = self.0[first..].partition_point(|term| term.block == *block);
        &self.0[first..][..same.min(MAX_TERMS_OF_BLOCK)]
    }

    /// What a file with this `recipe` can have from here, in its order, without overlaps. A run that lies
    /// here between two that do not is not found: nothing says where in the file it begins.
    pub fn copies(&self, recipe: &Recipe, lengths: &mut AskLengths<'_>) -> Vec<Copy> {
        let mut known = Lengths { ask: lengths, last: None };
        let mut copies: Vec<Copy> = Vec::new();
        let mut to = 0_u64;
        for term in &recipe.terms {
            let same_block = self.of_block(&term.block);
            if !same_block.is_empty() {
                let wanted = Wanted { chunks: term.chunks.clone(), bytes: 0..term.len.into() };
                for copy in wanted.find(same_block, &mut known) {
                    push(&mut copies, Copy { to: to + copy.to, ..copy });
                }
            }
            to += u64::from(term.len);
        }
        copies
    }
}

/// Whether a file of `size` bytes can be made so.
pub fn makes(recipe: &Recipe, size: u64) -> bool {
    let mut lens = recipe.terms.iter().map(|term| u64::from(term.len));
    lens.try_fold(0_u64, u64::checked_add) == Some(size)
}

/// Makes one copy of two that follow each other in both files.
fn push(copies: &mut Vec<Copy>, copy: Copy) {
    match copies.last_mut() {
        Some(last)
            if last.from == copy.from
                && last.to + last.len == copy.to
                && last.at + last.len == copy.at =>
        {
            last.len += copy.len;
        }
        _ => copies.push(copy),
    }
}

/// What is still to be found of a term, which shrinks from both ends.
struct Wanted {
    chunks: Range<u32>,
    /// Counted from the beginning of the term.
    bytes: Range<u64>,
}

impl Wanted {
    /// The parts of the term that `local` has, in their order.
    fn find(mut self, local: &[LocalTerm], lengths: &mut Lengths<'_, '_>) -> Vec<Copy> {
        let mut found = Vec::new();
        while !self.is_over()
            && let Some((chunks, copy)) = local.iter().find_map(|it| self.first_of(it, lengths))
        {
            self.chunks.start += chunks;
            self.bytes.start += copy.len;
            found.push(copy);
        }
        let from_left = found.len();
        while !self.is_over()
            && let Some((chunks, copy)) = local.iter().find_map(|it| self.last_of(it, lengths))
        {
            self.chunks.end -= chunks;
            self.bytes.end -= copy.len;
            found.push(copy);
        }
        found[from_left..].reverse();
        found
    }

    fn is_over(&self) -> bool {
        self.chunks.is_empty() || self.bytes.is_empty()
    }

    /// What `local` has of the first chunks: how many, and where their bytes are.
    fn first_of(&self, local: &LocalTerm, lengths: &mut Lengths<'_, '_>) -> Option<(u32, Copy)> {
        if !local.chunks.contains(&self.chunks.start) {
            return None;
        }
        let wanted = self.bytes.end - self.bytes.start;
        let all = u64::from(local.len);
        let skipped = self.chunks.start - local.chunks.start;
        let before = if skipped == 0 {
            0
        } else if local.chunks.end == self.chunks.end {
            all.checked_sub(wanted)?
        } else {
            lengths.sum(local, 0..skipped)?
        };
        let end = self.chunks.end.min(local.chunks.end);
        let len = if end == self.chunks.end { wanted } else { all.checked_sub(before)? };
        self.copy(local, end - self.chunks.start, before, len, self.bytes.start)
    }

    /// What `local` has of the last chunks. What has the first one is not asked.
    fn last_of(&self, local: &LocalTerm, lengths: &mut Lengths<'_, '_>) -> Option<(u32, Copy)> {
        let is_inside = local.chunks.start > self.chunks.start;
        if !is_inside || !local.chunks.contains(&(self.chunks.end - 1)) {
            return None;
        }
        let count = self.chunks.end - local.chunks.start;
        let len = if self.chunks.end == local.chunks.end {
            local.len.into()
        } else {
            lengths.sum(local, 0..count)?
        };
        self.copy(local, count, 0, len, self.bytes.end.checked_sub(len)?)
    }

    /// Nothing where the lengths contradict each other: a store can say anything.
    fn copy(
        &self,
        local: &LocalTerm,
        chunks: u32,
        before: u64,
        len: u64,
        to: u64,
    ) -> Option<(u32, Copy)> {
        let is_within = before.checked_add(len)? <= local.len.into();
        let fits = to >= self.bytes.start && to.checked_add(len)? <= self.bytes.end;
        (len > 0 && is_within && fits).then(|| {
            let at = local.at.saturating_add(before);
            (chunks, Copy { to, len, from: local.file as usize, at })
        })
    }
}

/// The lengths of the term that was asked for last: what follows is mostly about the same.
struct Lengths<'a, 'b> {
    ask: &'a mut AskLengths<'b>,
    last: Option<(LocalTerm, Option<Vec<u32>>)>,
}

impl Lengths<'_, '_> {
    /// Bytes of the chunks with these numbers, counted from the first of `term`.
    fn sum(&mut self, term: &LocalTerm, chunks: Range<u32>) -> Option<u64> {
        if self.last.as_ref().is_none_or(|(known, _)| known != term) {
            self.last = Some((term.clone(), (self.ask)(term)));
        }
        let lengths = self.last.as_ref()?.1.as_ref()?;
        let part = lengths.get(chunks.start as usize..chunks.end as usize)?;
        Some(part.iter().map(|len| u64::from(*len)).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(n: u8) -> [u8; 32] {
        [n; 32]
    }

    /// The length of a chunk of a block: any, but always the same.
    fn len_of(block: u8, chunk: u32) -> u32 {
        1 + (u32::from(block) * 31 + chunk * 17) % 13
    }

    fn term(of: u8, chunks: Range<u32>) -> Term {
        let len = chunks.clone().map(|chunk| len_of(of, chunk)).sum();
        Term { block: block(of), chunks, len }
    }

    fn recipe(terms: &[(u8, Range<u32>)]) -> Recipe {
        Recipe { terms: terms.iter().map(|(of, chunks)| term(*of, chunks.clone())).collect() }
    }

    /// Each byte by its chunk and its place in that.
    fn bytes(recipe: &Recipe) -> Vec<(u8, u32, u32)> {
        let chunks = recipe
            .terms
            .iter()
            .flat_map(|term| term.chunks.clone().map(move |chunk| (term.block[0], chunk)));
        chunks.flat_map(|(of, n)| (0..len_of(of, n)).map(move |at| (of, n, at))).collect()
    }

    fn local(recipes: &[Recipe]) -> LocalTerms {
        let mut local = LocalTerms::default();
        for (n, recipe) in recipes.iter().enumerate() {
            let size = recipe.terms.iter().map(|term| u64::from(term.len)).sum();
            local.add(n, size, recipe.clone());
        }
        local.sort();
        local
    }

    fn true_lengths(term: &LocalTerm) -> Option<Vec<u32>> {
        Some(term.chunks.clone().map(|chunk| len_of(term.block[0], chunk)).collect())
    }

    /// What is copied, without a look at the bytes of a chunk.
    fn copied(new: &[(u8, Range<u32>)], old: &[&[(u8, Range<u32>)]]) -> Vec<Copy> {
        let old: Vec<Recipe> = old.iter().map(|terms| recipe(terms)).collect();
        local(&old).copies(&recipe(new), &mut |term| panic!("{term:?} was looked at"))
    }

    fn len(of: u8, chunks: Range<u32>) -> u64 {
        term(of, chunks).len.into()
    }

    #[test]
    fn an_edit_at_either_end_needs_no_look_at_any_chunk() {
        let whole = Copy { to: 0, len: len(1, 0..9), from: 0, at: 0 };
        assert_eq!(copied(&[(1, 0..9)], &[&[(1, 0..9)]]), [whole]);
        // A new head: what follows is the end of the old block.
        let (cut, head) = (len(1, 0..2), len(7, 0..3));
        let tail = Copy { to: head, len: len(1, 2..9), from: 0, at: cut };
        assert_eq!(copied(&[(7, 0..3), (1, 2..9)], &[&[(1, 0..9)]]), [tail]);
        // A new tail.
        let first = Copy { to: 0, len: len(1, 0..4), from: 0, at: 0 };
        assert_eq!(copied(&[(1, 0..4), (7, 0..3)], &[&[(1, 0..9)]]), [first]);
        // The old file had less of the block, at its beginning and at its end.
        let part = Copy { to: 0, len: len(1, 0..4), from: 0, at: 0 };
        assert_eq!(copied(&[(1, 0..9)], &[&[(1, 0..4)]]), [part]);
        let part = Copy { to: len(1, 0..4), len: len(1, 4..9), from: 0, at: 0 };
        assert_eq!(copied(&[(1, 0..9)], &[&[(1, 4..9)]]), [part]);
    }

    #[test]
    fn several_files_serve_one_term_and_the_first_is_preferred() {
        let (one, two): (&[_], &[_]) = (&[(1, 0..4)], &[(7, 0..1), (1, 4..9)]);
        let parts = copied(&[(1, 0..9)], &[one, two]);
        let (left, right) = (len(1, 0..4), len(1, 4..9));
        let second = Copy { to: left, len: right, from: 1, at: len(7, 0..1) };
        assert_eq!(parts, [Copy { to: 0, len: left, from: 0, at: 0 }, second]);
        let whole: &[_] = &[(1, 0..9)];
        assert!(copied(&[(1, 0..9)], &[whole, whole]).iter().all(|copy| copy.from == 0));
        // What follows in both files is one copy.
        let joined = copied(&[(1, 0..9), (2, 0..3)], &[&[(1, 0..9), (2, 0..3)]]);
        assert_eq!(joined.len(), 1, "{joined:?}");
    }

    #[test]
    fn a_recipe_of_another_size_is_not_used() {
        let mut local = LocalTerms::default();
        local.add(0, len(1, 0..9) + 1, recipe(&[(1, 0..9)]));
        assert_eq!(local.0, []);
    }

    #[test]
    fn a_store_that_contradicts_itself_makes_no_copy_beyond_a_term() {
        let mut short = recipe(&[(1, 0..9)]);
        short.terms[0].len = 3;
        let mut long = recipe(&[(1, 0..9)]);
        long.terms[0].len = 4_000;
        assert_eq!(local(&[short]).copies(&long, &mut |_| None), []);
        let empty = Recipe { terms: vec![Term { block: block(1), chunks: 5..5, len: 7 }] };
        assert_eq!(local(std::slice::from_ref(&empty)).copies(&empty, &mut |_| None), []);
    }

    /// How a round of the comparison can be made to fail.
    #[derive(Clone, Copy, PartialEq)]
    enum Fault {
        None,
        WrongLengths,
    }

    fn any_recipe(random: &mut fastrand::Rng) -> Recipe {
        let mut terms = Vec::new();
        for _ in 0..random.usize(0..8) {
            let start = random.u32(0..20);
            terms.push((random.u8(0..3), start..start + random.u32(1..12)));
        }
        recipe(&terms)
    }

    /// Bytes that were found, or what is wrong with a copy. Everything that is found must be equal; all of what
    /// lies here must be found that touches an end of its term, however it is cut.
    fn compare(seed: u64, fault: Fault) -> Result<u64, String> {
        let mut random = fastrand::Rng::with_seed(seed);
        let old: Vec<Recipe> = (0..random.usize(1..4)).map(|_| any_recipe(&mut random)).collect();
        let new = any_recipe(&mut random);
        let lengths = &mut |term: &LocalTerm| {
            let mut lengths = true_lengths(term)?;
            if fault == Fault::WrongLengths {
                lengths[0] += 1;
            }
            Some(lengths)
        };
        let copies = local(&old).copies(&new, lengths);
        let (wanted, mut has) = (bytes(&new), vec![false; bytes(&new).len()]);
        for Copy { to, len, from, at } in &copies {
            let from = bytes(&old[*from]);
            for n in 0..*len {
                let (to, at) = ((to + n) as usize, (at + n) as usize);
                if from.get(at) != Some(&wanted[to]) {
                    return Err(format!(
                        "byte {to} is not byte {at}: {new:?} of {old:?}: {copies:?}"
                    ));
                }
                if std::mem::replace(&mut has[to], true) {
                    return Err(format!("byte {to} is copied twice: {copies:?}"));
                }
            }
        }
        let lies_here: std::collections::HashSet<_> = old.iter().flat_map(bytes).collect();
        let mut start = 0;
        for term in &new.terms {
            let end = start + term.len as usize;
            let left = (start..end).take_while(|at| lies_here.contains(&wanted[*at]));
            let right = (start..end).rev().take_while(|at| lies_here.contains(&wanted[*at]));
            if let Some(at) = left.chain(right).find(|at| !has[*at]) {
                return Err(format!("byte {at} was not found: {new:?} of {old:?}: {copies:?}"));
            }
            start = end;
        }
        Ok(copies.iter().map(|copy| copy.len).sum())
    }

    #[test]
    fn what_is_found_is_equal_and_all_that_touches_an_end_is_found() {
        let set = |name| std::env::var(name).ok().and_then(|value| value.parse().ok());
        let seed: Option<u64> = set("WEIGHTLIFT_TEST_SEED");
        let rounds =
            if seed.is_some() { 1 } else { set("WEIGHTLIFT_TEST_ROUNDS").unwrap_or(3_000) };
        let first = seed.unwrap_or_else(|| fastrand::u64(..u64::MAX / 2));
        let mut found = 0;
        for seed in first..first + rounds {
            match compare(seed, Fault::None) {
                Ok(bytes) => found += bytes,
                Err(why) => panic!("{why}; repeat it with WEIGHTLIFT_TEST_SEED={seed}"),
            }
        }
        assert!(seed.is_some() || found > rounds, "{found} bytes in {rounds} rounds");
    }

    #[test]
    fn the_comparison_sees_a_wrong_length() {
        let is_seen = (0..1_000).any(|seed| compare(seed, Fault::WrongLengths).is_err());
        assert!(is_seen);
    }
}
