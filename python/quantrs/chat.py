"""A conversation with a model: what was said, the answers, and the commands that a user gives in between."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing

from quantrs.errors import QuantrsError
from quantrs.generation import Generation

__all__ = ["HELP", "Conversation", "Talk"]

Message = dict[str, object]

HELP = """\
/reset         forget the conversation, keep the system message
/system TEXT   give the model this system message from now on; without TEXT none
/help          show this
/quit          leave; so does the end of input
Ctrl-C stops an answer; what was said stays in the conversation.
A line that ends in \\ goes on in the next one. A space before / sends the line as it is."""
"""The commands of `Talk`."""


class Conversation:
    """A system message and what was said.

    Parameters
    ----------
    ask
        Answers a list of messages.
    system
        The system message.
    """

    def __init__(self, ask: Callable[[Sequence[Message]], Generation], *, system: str | None = None) -> None:
        self._ask = ask
        self.system = system
        self.history: list[Message] = []
        self.answer: Generation | None = None
        """The last one."""

    def say(self, text: str) -> Generator[str, None, None]:
        """Pieces of the answer. An answer that is broken off is remembered as far as it was said; where nothing was, nor is `text`."""
        messages = self.messages(text)
        self.answer = self._ask(messages)
        return self._listen(messages[-1], self.answer)

    def messages(self, text: str) -> list[Message]:
        """The whole conversation with `text` as the newest message."""
        system: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, *self.history, {"role": "user", "content": text}]

    def _listen(self, question: Message, answer: Iterator[str]) -> Generator[str, None, None]:
        said: list[str] = []
        try:
            for piece in answer:
                said.append(piece)
                yield piece
        finally:
            if said:
                self.history += [question, {"role": "assistant", "content": "".join(said)}]


class Talk:
    """Takes lines from a user: commands, and messages to be answered.

    Parameters
    ----------
    conversation
        What the commands change.
    show
        Is given the pieces of answers, and a line end after each answer.
    tell
        Is given notices, whole lines.
    """

    def __init__(self, conversation: Conversation, *, show: Callable[[str], None], tell: Callable[[str], None]) -> None:
        self._conversation = conversation
        self._show = show
        self._tell = tell
        self.n_failed = 0
        """Messages that could not be answered."""

    def take(self, line: str) -> bool:
        """Obey or answer; False if that was the wish to leave."""
        if not line.startswith("/"):
            if line.strip():
                self._answer(line)
            return True
        command, _, rest = line.strip().partition(" ")
        if command == "/quit":
            return False
        if command == "/reset":
            self._conversation.history.clear()
            self._tell("the conversation starts over")
        elif command == "/system":
            self._conversation.system = rest.strip() or None
            self._tell("system message set" if rest.strip() else "no system message")
        elif command == "/help":
            self._tell(HELP)
        else:
            self._tell(f"{command}: no such command; /help lists them, a space before / sends the line as it is")
        return True

    def _answer(self, text: str) -> None:
        try:
            with closing(self._conversation.say(text)) as pieces:
                for piece in pieces:
                    self._show(piece)
        except KeyboardInterrupt:
            self._show("\n")
            self._tell("stopped")
            return
        except QuantrsError as error:
            self.n_failed += 1
            self._tell(f"{error}\n/reset starts the conversation over")
            return
        self._show("\n")
        answer = self._conversation.answer
        if answer is not None and answer.ending == "context":
            n_ctx = len(answer.prompt_ids) + len(answer.ids) - 1
            self._tell(f"the context of {n_ctx} tokens is full; /reset starts over, --ctx N makes more room")
