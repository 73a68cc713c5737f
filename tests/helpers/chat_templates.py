"""Chat templates that behave as those of published models do, in our own words. No test by itself.

Each is (template, special tokens of its tokenizer, the token that ends a reply).
"""

from __future__ import annotations

CHATML = "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
IM = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# Roles must alternate after the system turn, or the template raises.
ALTERNATE = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
)
# The last turn shows its thought, or an empty one; earlier turns lose theirs.
QWEN3 = (
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{% set t = m.content.split('</think>')[0].split('<think>')[-1].strip() if '</think>' in m.content else '' %}"
    "{% set c = m.content.split('</think>')[-1].lstrip('\\n') %}{{ '<|im_start|>assistant\\n' }}"
    "{% if loop.last %}{{ '<think>\\n' + t + '\\n</think>\\n\\n' }}{% endif %}{{ c + '<|im_end|>\\n' }}"
    "{% else %}" + CHATML + "{% endif %}{% endfor %}"
)
DATED = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set s = messages[0].content | trim %}"
    "{% set messages = messages[1:] %}{% else %}{% set s = '' %}{% endif %}"
    "{{ '<|start|>system\\nToday: ' + strftime_now('%d %b %Y') + '\\n' + s + '<|eot|>' }}"
    "{% for m in messages %}{{ '<|start|>' + m.role + '\\n' + m.content | trim + '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\\n' }}{% endif %}"
)
TEMPLATES: dict[str, tuple[str, list[str], str]] = {
    # One row a conversation.
    "chatml": ("{% for m in messages %}" + CHATML + "{% endfor %}" + PROMPT, IM, "<|im_end|>"),
    "qwen2.5": (  # a system turn of its own where none is given
        "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\\nYou help.<|im_end|>\\n' }}{% endif %}"
        "{% for m in messages %}" + CHATML + "{% endfor %}" + PROMPT,
        IM,
        "<|im_end|>",
    ),
    "llama3": (DATED, ["<|begin|>", "<|start|>", "<|eot|>"], "<|eot|>"),
    "mistral": (  # no system role
        "{{ bos_token }}" + ALTERNATE + "{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
        "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}",
        ["<s>", "</s>"],
        "</s>",
    ),
    "gemma2": (  # no system role either; trims
        "{{ bos_token }}"
        + ALTERNATE
        + "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n'"
        " + m.content | trim + '<end_of_turn>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}",
        ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"],
        "<end_of_turn>",
    ),
    "gemma3": (  # the system text begins the first user turn
        "{{ bos_token }}{% if messages[0].role == 'system' %}{% set s = messages[0].content + '\\n\\n' %}"
        "{% set messages = messages[1:] %}{% else %}{% set s = '' %}{% endif %}"
        + ALTERNATE
        + "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' + (s if loop.first else '')"
        " + m.content | trim + '<end_of_turn>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}",
        ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"],
        "<end_of_turn>",
    ),
    "glm": (  # an empty thought in every turn; the next turn's first token ends a reply
        "[gMASK]{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|assistant|>\\n<think></think>\\n'"
        " + m.content | trim }}{% else %}{{ '<|' + m.role + '|>\\n' + m.content }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}",
        ["[gMASK]", "<|system|>", "<|user|>", "<|assistant|>"],
        "<|user|>",
    ),
    "no system text": (  # reads user and assistant turns alone, without a word
        "{% for m in messages %}{% if m.role != 'system' %}" + CHATML + "{% endif %}{% endfor %}" + PROMPT,
        IM,
        "<|im_end|>",
    ),
    "field": (  # reasoning of a field, with marks of the template's own
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
        "{% if m.reasoning_content is defined %}{{ '[' + m.reasoning_content + ']' }}{% endif %}"
        "{{ m.content + '<|im_end|>\\n' }}{% endfor %}" + PROMPT,
        IM,
        "<|im_end|>",
    ),
    # One row a trained turn.
    "qwen3": (QWEN3 + PROMPT, IM, "<|im_end|>"),
    "qwen3 thinking": (QWEN3 + PROMPT.replace("assistant\\n", "assistant\\n<think>\\n"), IM, "<|im_end|>"),
    "mistral late system": (  # the system text begins the last user turn
        "{{ bos_token }}{% if messages[0].role == 'system' %}{% set s = messages[0].content + '\\n\\n' %}"
        "{% set messages = messages[1:] %}{% else %}{% set s = '' %}{% endif %}{% set n = messages | length %}"
        "{% for m in messages %}{% if m.role == 'user' %}"
        "{{ '[INST] ' + (s if loop.index0 >= n - 2 else '') + m.content + '[/INST]' }}"
        "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}",
        ["<s>", "</s>"],
        "</s>",
    ),
    "gpt-oss": (  # channels; another token ends the last turn than the earlier ones
        "{{ '<|start|>system<|message|>Date: ' + strftime_now(\"%Y-%m-%d\") + '<|end|>' }}{% for m in messages %}"
        "{% if m.role == 'assistant' %}{{ '<|start|>assistant<|channel|>final<|message|>' + m.content +"
        " ('<|return|>' if loop.last else '<|end|>') }}"
        "{% else %}{{ '<|start|>' + ('developer' if m.role == 'system' else m.role) + '<|message|>' + m.content"
        " + '<|end|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}",
        ["<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|return|>"],
        "<|return|>",
    ),
    "r1": (  # the prompt opens a thought, which no turn holds afterwards
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}"
        "{{ '<|assistant|>' + m.content.split('</think>')[-1].strip() + eos_token }}"
        "{% else %}{{ '<|' + m.role + '|>' + m.content }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|><think>\\n' }}{% endif %}",
        ["<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"],
        "</s>",
    ),
}
WHOLE = ("chatml", "qwen2.5", "llama3", "mistral", "gemma2", "gemma3", "glm", "no system text", "field")
# Tools in the system turn, calls and answers in tags; the arguments must be an object.
TOOLS = (
    "{% for m in messages %}{{ '<|im_start|>' + ('user' if m.role == 'tool' else m.role) + '\\n' }}"
    "{% if loop.first and tools %}{{ '# Tools\\n' + tools | map('tojson') | join('\\n') + '\\n' }}{% endif %}"
    "{% if m.role == 'tool' %}{{ '<tool_response>\\n' + m.content + '\\n</tool_response>' }}"
    "{% else %}{{ m.content }}{% for c in m.tool_calls or [] %}"
    '{{ \'\\n<tool_call>\\n{"name": "\' + c.function.name + \'", "arguments": \' }}'
    "{% for k, v in c.function.arguments.items() %}{{ k + '=' + v }}{% endfor %}{{ '}\\n</tool_call>' }}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}" + PROMPT
)
