//! What a page says of itself in its head: a tokenizer reads it, and no tree is built that could be deep (threat H3).
//!
//! <https://ogp.me/>

use std::collections::BTreeMap;

use encoding_rs::{Encoding, UTF_8};
use html5gum::{DefaultEmitter, StartTag, Token, Tokenizer};

/// Properties kept, and the longest of them in bytes.
const MAX_PROPERTIES: usize = 64;
const MAX_VALUE: usize = 1024;
/// Where a page says in which alphabet it is written, at the latest.
const PRESCAN: usize = 1024;

/// A page's properties: the first of each name counts.
pub fn properties(page: &[u8], charset: Option<&str>) -> BTreeMap<String, String> {
    let text = decode(page, charset);
    let mut emitter = DefaultEmitter::default();
    // Scripts and styles hold no tags.
    emitter.naively_switch_states(true);
    let tokens = Tokenizer::new_with_emitter(text.as_ref(), emitter);
    let mut found = Found::default();
    // Reading from memory can't fail.
    for token in tokens.flatten() {
        match token {
            Token::StartTag(tag) => match &tag.name[..] {
                b"body" => break,
                b"title" => found.in_title = true,
                b"meta" => found.meta(&tag),
                b"link" => found.link(&tag),
                _ => {}
            },
            Token::String(text) if found.in_title => {
                found.title.push_str(&String::from_utf8_lossy(&text));
            }
            Token::EndTag(tag) => match &tag.name[..] {
                b"title" => found.in_title = false,
                b"head" => break,
                _ => {}
            },
            _ => {}
        }
        if found.title.len() > MAX_VALUE {
            found.in_title = false;
        }
    }
    found.finish()
}

#[derive(Default)]
struct Found {
    properties: BTreeMap<String, String>,
    title: String,
    in_title: bool,
    description: Option<String>,
    icon: Option<String>,
}

impl Found {
    fn meta(&mut self, tag: &StartTag<()>) {
        let Some(content) = attribute(tag, b"content").filter(|content| !content.is_empty()) else {
            return;
        };
        let name = attribute(tag, b"property").or_else(|| attribute(tag, b"name"));
        match name.map(|name| name.to_ascii_lowercase()).as_deref() {
            Some("description") => {
                self.description.get_or_insert(content);
            }
            Some(name) if is_property(name) && self.properties.len() < MAX_PROPERTIES => {
                self.properties.entry(name.to_owned()).or_insert(content);
            }
            _ => {}
        }
    }

    /// What stands for a page that shows no picture.
    fn link(&mut self, tag: &StartTag<()>) {
        let kind = attribute(tag, b"rel").unwrap_or_default();
        if kind.eq_ignore_ascii_case("image_src")
            && let Some(address) = attribute(tag, b"href")
        {
            self.icon.get_or_insert(address);
        }
    }

    fn finish(mut self) -> BTreeMap<String, String> {
        let instead = [
            ("og:title", Some(clean(&self.title))),
            ("og:description", self.description),
            ("og:image", self.icon),
        ];
        for (name, value) in instead {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                self.properties.entry(name.to_owned()).or_insert(value);
            }
        }
        self.properties
    }
}

/// Of Open Graph, and the kinds of things it knows.
fn is_property(name: &str) -> bool {
    ["og:", "article:", "profile:", "book:", "video:", "music:"]
        .iter()
        .any(|family| name.starts_with(family))
        && name.len() <= 64
}

fn attribute(tag: &StartTag<()>, name: &[u8]) -> Option<String> {
    let value = &tag.attributes.get(name)?.value;
    Some(clean(&String::from_utf8_lossy(value)))
}

/// In one line, and not too long a one: cut between words, or within the first, for not all scripts set words apart.
fn clean(text: &str) -> String {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if line.is_empty() {
            line.push_str(
                word.get(..word.floor_char_boundary(MAX_VALUE))
                    .unwrap_or_default(),
            );
        } else if line.len() + word.len() < MAX_VALUE {
            line.push(' ');
            line.push_str(word);
        } else {
            break;
        }
    }
    line.retain(|c| !c.is_control());
    line
}

/// In the alphabet that its server names, or it does itself, or that most pages are in.
fn decode<'a>(page: &'a [u8], charset: Option<&str>) -> std::borrow::Cow<'a, str> {
    let named = charset.and_then(|label| Encoding::for_label(label.as_bytes()));
    let encoding = named.or_else(|| prescan(page)).unwrap_or(UTF_8);
    encoding.decode(page).0
}

/// `<meta charset=…>`, or the same said in the old way.
fn prescan(page: &[u8]) -> Option<&'static Encoding> {
    let head = page.get(..PRESCAN).unwrap_or(page).to_ascii_lowercase();
    let head = String::from_utf8_lossy(&head);
    let (_, label) = head.split_once("charset=")?;
    let label = label.trim_start_matches(['"', '\'', ' ']);
    let end = label.find(['"', '\'', ' ', ';', '>', '/'])?;
    // What could be read up to here isn't UTF-16, whatever it says.
    Encoding::for_label(label.get(..end)?.as_bytes()).map(Encoding::output_encoding)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn of(page: &str) -> Vec<(String, String)> {
        properties(page.as_bytes(), None).into_iter().collect()
    }

    fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
        pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    #[test]
    fn what_pages_say() {
        let page = "<!doctype html><html><head><title>The &amp; Rock\n (1996)</title>
            <script>'<meta property=\"og:title\" content=\"no\">'</script>
            <META property='og:type' content='video.movie'><meta property=og:type content=second>
            <meta name=description content='  Two\n words '><link rel=image_src href=/x.png>
            <meta property='fb:app' content=1></head><body><meta property='og:url' content='no'>";
        let expected = pairs([
            ("og:description", "Two words"),
            ("og:image", "/x.png"),
            ("og:title", "The & Rock (1996)"),
            ("og:type", "video.movie"),
        ]);
        assert_eq!(of(page), expected);
        assert_eq!(of(""), pairs([]));
        assert_eq!(of("no page at all"), pairs([]));
    }

    /// Chinese has no spaces.
    #[test]
    fn long_words_are_cut() {
        let long = "汉".repeat(500);
        let found = of(&format!("<title>{long} x</title>"));
        let shown = "汉".repeat(MAX_VALUE / 3);
        assert_eq!(found, pairs([("og:title", shown.as_str())]));
    }

    #[test]
    fn pages_in_other_alphabets() {
        let (page, _, _) = encoding_rs::WINDOWS_1251.encode(
            "<meta http-equiv=x content='text/html; charset=windows-1251'><title>Привет</title>",
        );
        let expected: BTreeMap<_, _> = pairs([("og:title", "Привет")]).into_iter().collect();
        assert_eq!(properties(&page, None), expected);
        let page = "<meta charset=utf-16><title>Привет</title>";
        assert_eq!(properties(page.as_bytes(), None), expected);
        let (page, _, _) = encoding_rs::SHIFT_JIS.encode("<title>日本</title>");
        let expected: BTreeMap<_, _> = pairs([("og:title", "日本")]).into_iter().collect();
        assert_eq!(properties(&page, Some("Shift_JIS")), expected);
    }

    /// H3: pages made to take for ever.
    #[test]
    fn h3_pages_without_end() {
        #[expect(clippy::disallowed_methods, reason = "what is measured is real time")]
        let began = SystemTime::now();
        let many = |text: &str| text.repeat((1 << 20) / text.len());
        let attributes: String = (0..100_000).map(|n| format!(" a{n}")).collect();
        for page in [
            many("<div>"),
            many("<"),
            many("<meta property=og:x content=y>"),
            many("&#"),
            many("<!--"),
            format!("<meta{attributes}>"),
            format!("<title>{}", many("x")),
        ] {
            let found = of(&page);
            assert!(found.len() <= 1);
            assert!(found.iter().all(|(_, value)| value.len() <= MAX_VALUE));
        }
        assert!(began.elapsed().unwrap() < Duration::from_secs(30));
    }
}
