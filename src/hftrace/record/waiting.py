"""``HFTRACE=wait``: this process can be traced later, while it runs, and does nothing until somebody asks.

One thread stands in ``accept`` on a socket that only this user can reach, without the interpreter's lock and
without ever waking up. It is no :class:`threading.Thread`, so the program's own list of threads is what it
was. A forked child, a worker of a server, has a thread and a socket of its own.

Nothing is imported here but what Python has built in: what records comes in when somebody asks.
"""

from __future__ import annotations

import _socket
import _thread
import atexit
import faulthandler
import os
import sys
import time

from hftrace.system import attachment

TYPE_CHECKING = False
"""As typing has it, which takes time to import."""
if TYPE_CHECKING:
    from collections.abc import Callable

PARKS = sys.version_info >= (3, 12)
"""Whether the thread ends before a fork and begins again after it: since 3.12 Python warns who forks with
more than one thread, and the program has only its own."""
PARK_SECONDS = 1.0
"""A fork waits no longer for that."""
GONE_SECONDS = 0.1
BACKLOG = 4


class Waiting:
    """The socket and the thread of this process.

    Args:
        folder: Where the socket goes.
        once: Whether it is for one who asks, and no more.
    """

    def __init__(self, folder: str, *, once: bool = False) -> None:
        self.folder = folder
        self._once = once
        self.pid = 0
        self.busy = False
        """Whether somebody is being served."""
        self.connection: _socket.socket | None = None
        self._path = ""
        self._inode: tuple[int, int] | None = None
        self._listening: _socket.socket | None = None
        self._running = _thread.allocate_lock()
        self._stacks: int | None = None

    def open(self) -> None:
        """Begins to wait.

        Raises:
            OSError: There is no socket to be had.
        """
        self.pid, self.busy = os.getpid(), False
        self._path = attachment.socket_path(self.folder, self.pid)
        listening = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            if os.path.lexists(self._path):
                os.unlink(self._path)  # of an earlier process by this number
            listening.bind(self._path)
            os.chmod(self._path, attachment.SOCKET_MODE)
            listening.listen(BACKLOG)
            self._listening, self._inode = listening, _inode(listening)
            self._running = _thread.allocate_lock()
            self._running.acquire()
            _thread.start_new_thread(self._run, (listening, self._running))
            self._write_stacks()
        except BaseException:
            self._listening = None
            listening.close()
            raise

    def _write_stacks(self) -> None:
        """Prepares to tell one where it stands to whom it cannot answer: faulthandler needs no lock."""
        if self._stacks is None and hasattr(faulthandler, "register"):
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
            path = attachment.stacks_path(self.folder, self.pid)
            self._stacks = os.open(path, flags, attachment.SOCKET_MODE)
            faulthandler.register(attachment.STACKS_SIGNAL, self._stacks, all_threads=True, chain=False)

    def _forget_stacks(self) -> None:
        stacks, self._stacks = self._stacks, None
        if stacks is not None:
            faulthandler.unregister(attachment.STACKS_SIGNAL)
            path = attachment.stacks_path(self.folder, self.pid)
            if _link(stacks) == path:  # and not a number that is the program's by now
                os.close(stacks)
                if self.pid == os.getpid():
                    os.unlink(path)

    def is_open(self) -> bool:
        """Returns whether the socket is ours still: a daemon closes all that it finds."""
        return self._listening is not None and _inode(self._listening) == self._inode

    def close(self) -> None:
        """Waits no more: takes the name away, and lets the thread end."""
        listening, ours = self._listening, self.is_open()
        self._listening = None
        if listening is None:
            return
        if self.pid == os.getpid():
            try:
                os.unlink(self._path)
            except OSError:
                pass
            if ours:
                try:
                    listening.shutdown(_socket.SHUT_RDWR)  # what wakes accept
                except OSError:
                    pass
        if ours:
            listening.close()
        else:
            listening.detach()  # the number is the program's by now

    def park(self) -> None:
        """Lets the thread end before a fork."""
        if self.busy or self._listening is None:
            return
        before = _threads()
        self.close()
        self._running.acquire(timeout=PARK_SECONDS)
        until = time.monotonic() + GONE_SECONDS
        # Its last steps are out of Python's sight, and the kernel still counts it.
        while _threads() >= before and time.monotonic() < until:
            os.sched_yield()

    def resume(self) -> None:
        """Waits again after a fork, in the parent."""
        if self._listening is None:
            self.open()

    def end(self) -> None:
        """Waits no more, for good."""
        self.close()
        self._forget_stacks()

    def after_fork(self) -> None:
        """Waits in the child, which has none of the parent's threads; what is the parent's is let go."""
        self._forget_stacks()
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()
        self.close()
        self.open()

    def _run(self, listening: _socket.socket, running: _thread.LockType) -> None:
        try:
            while self._listening is listening and self.is_open():
                try:
                    number, _ = listening._accept()  # type: ignore[attr-defined]
                except OSError:
                    return  # closed
                connection = _socket.socket(fileno=number)
                try:
                    if _is_own_user(connection):
                        self._serve(connection, listening)
                        if self._once:
                            end()
                except BaseException:
                    pass  # whatever it is, the program runs
                finally:
                    self.busy, self.connection = False, None
                    connection.close()
        finally:
            running.release()

    def _serve(self, connection: _socket.socket, listening: _socket.socket) -> None:
        self.busy, self.connection = True, connection
        from hftrace.record.attached import serve

        serve(connection, listening)


def _inode(opened: _socket.socket) -> tuple[int, int] | None:
    try:
        found = os.fstat(opened.fileno())
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _link(descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


def _is_own_user(connection: _socket.socket) -> bool:
    raw = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, attachment.MAX_CREDENTIALS)
    return attachment.credentials(raw)[1] == os.geteuid()


def _threads() -> int:
    """Returns how many threads the kernel knows of this process."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 0


_waiting: list[Waiting] = []
_registered: list[bool] = []


def begin(*, once: bool = False) -> None:
    """Lets this process, and its children by fork, wait until somebody asks; a second call does nothing.

    Args:
        once: For one who comes at once: nothing stays when he has left.

    Raises:
        OSError: There is no socket to be had.
    """
    if _waiting:
        return
    folder = attachment.make_folder(os.environ)
    attachment.forget_dead(folder)
    waiting = Waiting(folder, once=once)
    waiting.open()
    _waiting.append(waiting)
    atexit.register(end)
    if not _registered:
        _registered.append(True)  # it cannot be taken back
        os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)


def end() -> None:
    """Waits no more."""
    while _waiting:
        _quietly(_waiting.pop().end)
    atexit.unregister(end)


def _before() -> None:
    if PARKS:
        for waiting in _waiting:
            waiting.park()


def _in_parent() -> None:
    if PARKS:
        for waiting in _waiting:
            _quietly(waiting.resume)


def _in_child() -> None:
    for waiting in _waiting:
        _quietly(waiting.after_fork)


def _quietly(step: Callable[[], None]) -> None:
    try:
        step()
    except Exception:
        pass  # no socket to be had: the program runs
