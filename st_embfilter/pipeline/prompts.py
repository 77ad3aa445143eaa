"""Prompts as data: the named templates, and how a portable artifact splits them.

A template is a text with ``{text}`` in it: once where the last token is pooled, as with PromptEOL,
or twice, at its end too, where the second copy is pooled, as with Echo.
"""

from dataclasses import dataclass, field

from st_embfilter.errors import TemplateError

PLACEHOLDER = "{text}"
PROMPTS = {
    # The reference's wording (arXiv 2606.07502) of PromptEOL.
    "prompteol": 'Summarize the sentence: "{text}" in one word:"',
    # PromptEOL's first one (Jiang et al., arXiv 2307.16645).
    "prompteol-classic": 'This sentence : "{text}" means in one word:"',
    # Both are Zhang et al.'s (arXiv 2404.03921): pretended chain of thought, knowledge enhancement.
    "cot": 'After thinking step by step , this sentence : "{text}" means in one word:"',
    "knowledge": "The essence of a sentence is often captured by its main subjects and actions, "
    "while descriptive terms provide additional but less central details. With this in mind , "
    'this sentence : "{text}" means in one word:"',
    # Ours: what a text is about, in the place of what it says (docs/choices.md).
    "keyword": 'Text: "{text}"\nKeyword: "',
    # Echo embeddings (Springer et al., arXiv 2402.15449), as the reference words it.
    "echo": "Rewrite the following paragraph: {text}. The rewritten paragraph: {text}",
    "none": "{text}",
}
DEFAULT_PROMPT = "prompteol"
# sentence-transformers' names: `encode_query` and `encode_document` take them.
QUERY, DOCUMENT = "query", "document"
# The name of the plain texts' prompt, where it needs one and is neither of those.
PLAIN = "plain"


@dataclass(frozen=True)
class Prompts:
    """The templates of a model.

    Attributes:
        plain: What ``encode`` uses.
        named: What ``encode_query``, ``encode_document`` or ``prompt_name`` use instead.
    """

    plain: str
    named: dict[str, str] = field(default_factory=dict)

    @property
    def echo(self) -> bool:
        """Whether the text is repeated, and more than the last token is pooled."""
        return self.plain.count(PLACEHOLDER) == 2


def resolve_prompts(prompt: str, query: str | None = None, document: str | None = None) -> Prompts:
    """The templates for prompts' names, or for the templates themselves.

    Raises:
        TemplateError: If one is neither a name nor a template, or if they don't pool alike.
    """
    named = {}
    if query is not None or document is not None:
        # Both, always: without a prompt of that name encode_query and encode_document use none.
        given = {QUERY: query, DOCUMENT: document}
        named = {
            name: resolve_template(prompt if value is None else value)
            for name, value in given.items()
        }
    prompts = Prompts(resolve_template(prompt), named)
    if any(template.count(PLACEHOLDER) != prompts.echo + 1 for template in named.values()):
        raise TemplateError(
            f"one model pools in one way: its prompts hold {PLACEHOLDER} all once (the last token "
            f"is pooled) or all twice (as Echo)"
        )
    return prompts


def resolve_template(prompt: str) -> str:
    """The template of a prompt's name, or the template itself.

    Raises:
        TemplateError: If it is neither.
    """
    template = PROMPTS.get(prompt, prompt)
    count = template.count(PLACEHOLDER)
    if count == 1 or (count == 2 and template.endswith(PLACEHOLDER)):
        return template
    raise TemplateError(
        f"the prompt {prompt!r} holds {PLACEHOLDER} {count} times: a template needs it exactly "
        f"once, or twice with the second at its very end, as Echo has it (or use a name: "
        f"{', '.join(PROMPTS)})"
    )


@dataclass(frozen=True)
class PortablePrompts:
    """Templates as a portable artifact carries them.

    Attributes:
        template: What is built into the tokenizer for all of them: what they have behind the text,
            and the front where they share it.
        fronts: By name, what stands between its front and the text. sentence-transformers puts it
            there, as the prompt of that name.
        default: The name that plain texts use, or ``None`` where ``template`` is whole for them.
    """

    template: str
    fronts: dict[str, str]
    default: str | None


def split_for_portable(prompts: Prompts) -> PortablePrompts:
    """Split templates into what the tokenizer carries, and the fronts that differ.

    Raises:
        TemplateError: If they differ behind the text, where sentence-transformers puts nothing, or
            if there are several as Echo's.
    """
    if prompts.echo:
        if prompts.named:
            raise TemplateError(
                "in the portable form Echo has one prompt for all texts. The exact form takes one "
                "for queries and one for documents (--format exact)"
            )
        return PortablePrompts(prompts.plain, {}, None)
    plain_front, back = prompts.plain.split(PLACEHOLDER)
    fronts = {}
    for name, template in prompts.named.items():
        fronts[name], other_back = template.split(PLACEHOLDER)
        if other_back != back:
            raise TemplateError(
                f"the {name} prompt has {other_back!r} behind the text, the plain one {back!r}: "
                f"the portable form can only hold prompts that differ in front of it. The exact "
                f"form holds these (--format exact)"
            )
    # A front that is built in and ends in a space gives one to each part of a text between added
    # tokens, as Gemma's line breaks. So where fronts differ, sentence-transformers puts all of
    # each: then front and text are one string. But where all begin with the plain one, that is
    # built in, for servers that know no prompts.
    same = all(front == plain_front for front in fronts.values())
    begun = all(front.startswith(plain_front) for front in fronts.values())
    shared = plain_front if same or (begun and plain_front.endswith(" ")) else ""
    rests = {name: front.removeprefix(shared) for name, front in fronts.items()}
    default = None
    if plain_front != shared:
        default = next((name for name in fronts if fronts[name] == plain_front), PLAIN)
        rests[default] = plain_front.removeprefix(shared)
    return PortablePrompts(f"{shared}{PLACEHOLDER}{back}", rests, default)
