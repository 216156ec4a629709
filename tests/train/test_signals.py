"""Signals: the first is remembered, the second acts as usual, and what is ignored stays ignored."""

import gc
import os
import signal
import threading
import time

import pytest

from rlhf_jax.calls import SIGNALS
from rlhf_jax.train import signals
from rlhf_jax.train.signals import Stopped, exit_on_signal, stop_on_signal


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_remembered_and_the_second_acts_as_usual(number, monkeypatch):
  monkeypatch.setattr(signals, "ECHO_SECONDS", 0.0)
  before = signal.getsignal(number)
  with exit_on_signal(), stop_on_signal() as signalled:
    assert signalled() == 0
    os.kill(os.getpid(), number)
    assert signalled() == number
    with pytest.raises(Stopped) as stop:
      os.kill(os.getpid(), number)
  assert stop.value.number == number
  assert signal.getsignal(number) is before


def test_sigterm_twice_at_once_is_one_signal():
  """SLURM sends SIGTERM, and a moment later SIGTERM and SIGKILL, which waits, to a job that it preempts."""
  with exit_on_signal():
    with stop_on_signal() as signalled:
      os.kill(os.getpid(), signal.SIGTERM)
      os.kill(os.getpid(), signal.SIGTERM)
      assert signalled() == signal.SIGTERM
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_twice_at_once_does_not_disturb_what_clears_away():
  cleared = []
  with pytest.raises(Stopped), exit_on_signal():
    try:
      os.kill(os.getpid(), signal.SIGTERM)
    finally:
      os.kill(os.getpid(), signal.SIGTERM)
      cleared.append(True)
  assert cleared


def test_a_signal_that_is_ignored_stays_ignored():
  before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
  try:
    with exit_on_signal(), stop_on_signal() as signalled:
      os.kill(os.getpid(), signal.SIGHUP)
      assert signalled() == 0
  finally:
    signal.signal(signal.SIGHUP, before)


def test_no_signal_is_caught_outside_the_main_thread():
  found = []

  def work():
    with stop_on_signal() as signalled:
      found.append((signal.getsignal(signal.SIGTERM), signalled()))

  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  assert found == [(signal.getsignal(signal.SIGTERM), 0)]


def test_a_signal_while_garbage_is_collected_is_not_lost(capsys):
  """Python drops what a callback of its garbage collector raises."""
  sent = []

  def collected(phase, info):
    if not sent:
      sent.append(phase)
      os.kill(os.getpid(), signal.SIGTERM)

  gc.callbacks.append(collected)
  try:
    with pytest.raises(Stopped) as stop, exit_on_signal():
      gc.collect()
      assert sent
      time.sleep(10)
  finally:
    gc.callbacks.remove(collected)
  assert stop.value.number == signal.SIGTERM
  assert capsys.readouterr().err == ""
