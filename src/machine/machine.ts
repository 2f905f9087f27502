import type { Duplex, Readable, Writable } from 'node:stream'

/** How a program ended. Exactly one of the two is set. */
export interface Exit {
  /** Exit status, 0 to 255. */
  code: number | null
  /** Signal name with its prefix, for example `SIGTERM`. */
  signal: NodeJS.Signals | null
}

export interface WindowSize {
  rows: number
  cols: number
}

export interface SpawnOptions {
  /** Added to the machine's own environment. */
  env?: Record<string, string>
  /** Absolute path on the machine. */
  cwd?: string
  /** Give the program a terminal; stderr then arrives on stdout. */
  tty?: WindowSize & { term?: string }
  /** The program reads nothing: its standard input is /dev/null. Signals still reach it, as after an end of input they may not. */
  noInput?: boolean
  /** Aborting it kills the program. */
  signal?: AbortSignal
  /**
   * No pipes, its output in the file `log`. With `stays` it also outlives this process and the connection; without,
   * its parent there ends with them, which it may watch for itself.
   */
  detach?: { log: string; stays: boolean }
}

/** A running program on some machine. */
export interface Process {
  /** Process id on its machine, where known. */
  readonly pid: number | undefined
  readonly stdin: Writable
  readonly stdout: Readable
  readonly stderr: Readable
  /** Settles when the program has ended and its output has arrived; rejects only when the machine was lost. */
  readonly exited: Promise<Exit>
  kill(signal?: NodeJS.Signals): void
  resize(size: WindowSize): void
}

/** An address as seen on the machine itself. */
export type Address = { unix: string } | { host: string; port: number }

/**
 * Anything that can run a program: the local host, a host reached over ssh, or a guest.
 * A guest is a machine, so it can be the place where the next one starts.
 */
export interface Machine extends AsyncDisposable {
  /** The machine's path from here, for messages: `host`, `outer/inner`, `ssh://me@server`. */
  readonly name: string
  /** Starts a program from an argv array; nothing is parsed by a shell. Rejects with code `NOT_FOUND` or `NOT_EXECUTABLE`. */
  spawn(argv: readonly string[], options?: SpawnOptions): Promise<Process>
  /** Connects to a TCP or unix socket as that machine sees it. */
  connect(address: Address, signal?: AbortSignal): Promise<Duplex>
}
