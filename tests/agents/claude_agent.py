"""An agent of the Claude Agent SDK with its own tool for files. Argument: the prompt."""

import asyncio
import sys

from claude_agent_sdk import ClaudeAgentOptions, query


async def main():
    options = ClaudeAgentOptions(allowed_tools=["Read"], model="claude-opus-5-5", max_turns=6)
    async for message in query(prompt=sys.argv[1], options=options):
        for block in getattr(message, "content", []):
            if text := getattr(block, "text", None):
                print(text)


asyncio.run(main())
