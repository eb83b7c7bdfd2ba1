"""An agent of OpenAI's Agents SDK with one tool; `Responses` by default. Argument: the prompt."""

import asyncio
import sys
from pathlib import Path

from agents import Agent, Runner, function_tool, set_tracing_disabled

set_tracing_disabled(True)


@function_tool
def read_file(file_path: str) -> str:
    """Reads a file."""
    return Path(file_path).read_text()


async def main():
    agent = Agent(name="reader", instructions="Read what is asked for.", tools=[read_file], model="main")
    whole = await Runner.run(agent, sys.argv[1])
    print(whole.final_output)
    streamed = Runner.run_streamed(agent, sys.argv[1])
    async for _ in streamed.stream_events():
        pass
    print(streamed.final_output)


asyncio.run(main())
