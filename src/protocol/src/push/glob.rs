//! Glob matching in linear time.
//!
//! A pattern of up to [`MAX_GLOB_BYTES`] becomes a bit-parallel automaton: bit *i* of the state says "the first *i* tokens have
//! been consumed", a character moves all bits at once, and a `*` before token *i* lets bit *i* stay. The cost is the length of
//! the text times one machine word for each 64 tokens, whatever the pattern: there is nothing to backtrack.
//!
//! <https://spec.matrix.org/v1.19/appendices/#glob-style-matching>

/// Longest pattern accepted, in bytes: room for any Matrix identifier, twice.
pub const MAX_GLOB_BYTES: usize = 512;

const WORD: usize = u64::BITS as usize;
const MAX_WORDS: usize = MAX_GLOB_BYTES / WORD + 1;

type State = [u64; MAX_WORDS];

/// How many word operations matching may still spend; shared by all patterns tried on one event.
///
/// When it is used up, patterns no longer match. No honest ruleset comes near [`Steps::PER_EVENT`].
#[derive(Debug)]
pub struct Steps(u64);

impl Steps {
    /// What one ruleset may spend on one event: a 64 KiB body against 32 ordinary keywords, in a few milliseconds.
    pub const PER_EVENT: u64 = 1 << 21;

    /// A budget of `count` word operations.
    pub fn new(count: u64) -> Self {
        Self(count)
    }

    /// How many are left.
    pub fn left(&self) -> u64 {
        self.0
    }

    fn spend(&mut self, count: u64) -> bool {
        match self.0.checked_sub(count) {
            Some(left) => {
                self.0 = left;
                true
            }
            None => false,
        }
    }
}

impl Default for Steps {
    fn default() -> Self {
        Self(Self::PER_EVENT)
    }
}

/// A compiled glob pattern, compared without regard to case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    source: String,
    /// For each character of the pattern, sorted: the tokens it satisfies.
    classes: Vec<(char, Box<[u64]>)>,
    /// The tokens any character satisfies (`?`).
    any: Box<[u64]>,
    /// The positions where a `*` stands.
    stars: Box<[u64]>,
    /// How many tokens there are; that bit is the accepting one.
    tokens: usize,
}

impl Glob {
    /// Compiles `pattern`; `None` if it is longer than [`MAX_GLOB_BYTES`].
    pub fn new(pattern: &str) -> Option<Self> {
        Self::compile(pattern, true)
    }

    /// A pattern that matches `text` and has no wildcards; `None` if it is longer than [`MAX_GLOB_BYTES`].
    pub fn literal(text: &str) -> Option<Self> {
        Self::compile(text, false)
    }

    fn compile(pattern: &str, wildcards: bool) -> Option<Self> {
        if pattern.len() > MAX_GLOB_BYTES {
            return None;
        }
        let tokens = pattern.chars().filter(|c| !wildcards || *c != '*').count();
        let words = tokens / WORD + 1;
        let zero = || vec![0u64; words].into_boxed_slice();
        let (mut any, mut stars) = (zero(), zero());
        let mut classes: Vec<(char, Box<[u64]>)> = Vec::new();
        let mut position = 0;
        for c in pattern.chars() {
            match c {
                '*' if wildcards => {
                    set(&mut stars, position);
                    continue;
                }
                '?' if wildcards => set(&mut any, position),
                c => {
                    let c = fold(c);
                    let at = match classes.binary_search_by_key(&c, |(c, _)| *c) {
                        Ok(at) => at,
                        Err(at) => {
                            classes.insert(at, (c, zero()));
                            at
                        }
                    };
                    if let Some((_, class)) = classes.get_mut(at) {
                        set(class, position);
                    }
                }
            }
            position += 1;
        }
        for (_, class) in &mut classes {
            for (word, any) in class.iter_mut().zip(&any) {
                *word |= any;
            }
        }
        Some(Self {
            source: pattern.to_owned(),
            classes,
            any,
            stars,
            tokens,
        })
    }

    /// The pattern as it was given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the whole of `text` matches.
    pub fn matches(&self, text: &str, steps: &mut Steps) -> bool {
        let mut state: State = [0; MAX_WORDS];
        set(&mut state, 0);
        for c in text.chars() {
            if !self.step(&mut state, c, steps) || state.iter().all(|word| *word == 0) {
                return false;
            }
        }
        get(&state, self.tokens)
    }

    /// Whether a part of `text` that starts and ends at a word boundary matches. An empty pattern matches only an empty text.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#conditions-1> (`event_match` on `content.body`)
    pub fn matches_words(&self, text: &str, steps: &mut Steps) -> bool {
        if self.source.is_empty() {
            return text.is_empty();
        }
        let mut state: State = [0; MAX_WORDS];
        let mut before = None;
        for c in text.chars() {
            if is_boundary(before, Some(c)) {
                if get(&state, self.tokens) {
                    return true;
                }
                set(&mut state, 0);
            }
            if !self.step(&mut state, c, steps) {
                return false;
            }
            before = Some(c);
        }
        set(&mut state, 0);
        get(&state, self.tokens)
    }

    /// Consumes one character; `false` if the budget is used up.
    fn step(&self, state: &mut State, c: char, steps: &mut Steps) -> bool {
        if !steps.spend(self.stars.len() as u64) {
            return false;
        }
        let class = match self.classes.binary_search_by_key(&fold(c), |(c, _)| *c) {
            Ok(at) => self.classes.get(at).map_or(&self.any, |(_, class)| class),
            Err(_) => &self.any,
        };
        let mut carry = 0;
        for ((word, class), stars) in state.iter_mut().zip(class).zip(&self.stars) {
            let moved = *word & class;
            *word = (moved << 1) | carry | (*word & stars);
            carry = moved >> (WORD - 1);
        }
        true
    }
}

fn set(words: &mut [u64], bit: usize) {
    if let Some(word) = words.get_mut(bit / WORD) {
        *word |= 1 << (bit % WORD);
    }
}

fn get(words: &[u64], bit: usize) -> bool {
    words
        .get(bit / WORD)
        .is_some_and(|word| word & (1 << (bit % WORD)) != 0)
}

/// A text as patterns compare it, without regard to case: equal to one without wildcards where that is folded, too.
pub fn folded(text: &str) -> String {
    text.chars().map(fold).collect()
}

/// Lower case, one character for one: a `?` stays one character of the text as it was written.
pub(super) fn fold(c: char) -> char {
    let mut lower = c.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(only), None) => only,
        _ => c,
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Whether a match may start or end between these two characters of the text (`None`: its edge).
fn is_boundary(before: Option<char>, after: Option<char>) -> bool {
    match (before, after) {
        (Some(before), Some(after)) => !is_word(before) || !is_word(after),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(pattern: &str, text: &str) -> bool {
        Glob::new(pattern)
            .unwrap()
            .matches(text, &mut Steps::default())
    }

    fn words(pattern: &str, text: &str) -> bool {
        Glob::new(pattern)
            .unwrap()
            .matches_words(text, &mut Steps::default())
    }

    /// The examples of the spec's "event_match".
    #[test]
    fn the_specs_examples() {
        for text in ["Lunch plans", "LUNCH"] {
            assert!(whole("lunc?*", text), "{text}");
        }
        for text in [" lunch", "lunc"] {
            assert!(!whole("lunc?*", text), "{text}");
        }
        for text in ["An example event.", "exple", "An exciting triple-whammy"] {
            assert!(words("ex*ple", text), "{text}");
        }
        assert!(!words("ex*ple", "examples"));
    }

    #[test]
    fn words_end_where_the_spec_says() {
        for (pattern, text, expected) in [
            ("cake", "a cake", true),
            ("cake", "cakes", false),
            ("cake", "_cake", false),
            ("cake", "CAKE!", true),
            ("cake", "écake", true),
            ("cake", "cakecake cake", true),
            ("foo foo", "xfoo foo foo", true),
            ("@room", "hi @room!", true),
            ("ÉTÉ", "un été chaud", true),
            ("?", "ab c", true),
            ("*", "", true),
            ("", "anything", false),
            ("", "", true),
            ("😀", "a😀b", true),
        ] {
            assert_eq!(words(pattern, text), expected, "{pattern:?} in {text:?}");
        }
    }

    /// G6: the work is the text's length times the pattern's words, for the patterns that make others backtrack.
    #[test]
    fn g6_hostile_patterns_cost_no_more_than_others() {
        let text = "a".repeat(64 * 1024);
        let stars = "a*".repeat(MAX_GLOB_BYTES / 2 - 1) + "b";
        let needle = "a".repeat(MAX_GLOB_BYTES - 1) + "b";
        let gaps = "?*a".repeat(MAX_GLOB_BYTES / 3 - 1) + "b";
        for pattern in [stars, needle, gaps] {
            let glob = Glob::new(&pattern).unwrap();
            let budget = (text.len() * MAX_WORDS) as u64;
            assert!(!glob.matches_words(&text, &mut Steps::new(budget)));
            assert!(!glob.matches(&text, &mut Steps::new(budget)));
            let mut steps = Steps::new(budget);
            glob.matches_words(&text, &mut steps);
            let words = glob.tokens / WORD + 1;
            assert_eq!(budget - steps.left(), (text.len() * words) as u64);
        }
        assert!(Glob::new(&"a".repeat(MAX_GLOB_BYTES + 1)).is_none());
    }

    #[test]
    fn g6_a_spent_budget_matches_nothing() {
        let glob = Glob::new("abc").unwrap();
        let mut steps = Steps::new(5);
        assert!(glob.matches("abc", &mut steps));
        assert_eq!(steps.left(), 2);
        assert!(!glob.matches("abc", &mut steps));
    }

    /// The textbook definition, exponential and obvious.
    fn naive(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|n| naive(rest, &text[n..])),
            Some((c, rest)) => text
                .split_first()
                .is_some_and(|(t, tail)| (*c == '?' || c == t) && naive(rest, tail)),
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab?*-]{1,8}", text in "[ab-]{0,10}") {
            let p: Vec<char> = pattern.chars().collect();
            let t: Vec<char> = text.chars().collect();
            prop_assert_eq!(whole(&pattern, &text), naive(&p, &t));
            let edge = |i: usize| is_boundary(i.checked_sub(1).map(|i| t[i]), t.get(i).copied());
            let expected = (0..=t.len()).filter(|i| edge(*i)).any(|from| {
                (from..=t.len()).filter(|i| edge(*i)).any(|to| naive(&p, &t[from..to]))
            });
            prop_assert_eq!(words(&pattern, &text), expected);
        }

        #[test]
        fn patterns_longer_than_a_machine_word(prefix in "[ab]{60,140}", tail in "[ab]{0,70}") {
            let text = format!("{prefix}xyz{tail}");
            let (fits, differs) = (format!("{prefix}*{tail}"), format!("{prefix}c*{tail}"));
            prop_assert!(whole(&fits, &text));
            prop_assert!(!whole(&differs, &text));
        }
    }
}
