import { constants } from 'node:os'
import type { Readable } from 'node:stream'
import type { Exit, Process, WindowSize } from '../machine/machine.ts'
import type { Session } from './session.ts'

export interface Attachment {
  /** Give the program our standard input. */
  interactive: boolean
  /** The program has a terminal: ours goes into raw mode, and size changes are passed on. */
  tty: boolean
}

/** Connects our standard streams to a program until it ends. Returns the exit status a shell would report. */
export async function attach(process_: Process, session: Session, { interactive, tty }: Attachment): Promise<number> {
  const { stdin, stdout, stderr } = process
  process_.stdout.on('data', (chunk: Buffer) => {
    if (!stdout.write(chunk)) pause(process_.stdout, stdout)
  })
  process_.stderr.on('data', (chunk: Buffer) => {
    if (!stderr.write(chunk)) pause(process_.stderr, stderr)
  })
  const raw = tty && stdin.isTTY
  if (raw) stdin.setRawMode(true)
  if (interactive) stdin.pipe(process_.stdin)
  const resize = () => process_.resize(windowSize())
  if (tty) stdout.on('resize', resize)
  session.onInterrupt = () => process_.kill('SIGINT')
  const { signal } = session.context
  const abort = () => process_.kill('SIGTERM')
  signal.addEventListener('abort', abort)
  try {
    const stopped = new Promise<never>((_, reject) => {
      signal.addEventListener('abort', () => setTimeout(() => reject(signal.reason), 2000).unref())
      if (signal.aborted) reject(signal.reason)
    })
    stopped.catch(() => {})
    const exit = await Promise.race([process_.exited, stopped])
    // How the program took it does not matter: the reason for stopping it is what counts.
    signal.throwIfAborted()
    return exitStatus(exit)
  } finally {
    signal.removeEventListener('abort', abort)
    session.onInterrupt = undefined
    stdout.off('resize', resize)
    if (raw) stdin.setRawMode(false)
    stdin.unpipe(process_.stdin)
    stdin.pause()
  }
}

export function windowSize(): WindowSize {
  return { rows: process.stdout.rows || 24, cols: process.stdout.columns || 80 }
}

export function exitStatus({ code, signal }: Exit): number {
  return code ?? 128 + (signal ? constants.signals[signal] : 1)
}

function pause(input: Readable, output: NodeJS.WriteStream): void {
  input.pause()
  output.once('drain', () => input.resume())
}
