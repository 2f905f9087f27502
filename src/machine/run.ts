import type { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { NestvmError } from '../store/error.ts'
import type { Exit, Machine, Process } from './machine.ts'

export interface RunOptions {
  /** Written to the program's stdin, which is closed then. */
  input?: string | Uint8Array
  env?: Record<string, string>
  cwd?: string
  timeoutMs?: number
  signal?: AbortSignal
  /** Return whatever the exit status is. */
  allowFailure?: boolean
  /** Most bytes kept of stdout and of stderr each; 16 MiB unless said. What runs in a guest is not trusted. */
  maxOutput?: number
}

export interface RunResult {
  stdout: string
  stderr: string
  exit: Exit
}

/**
 * Runs a program to its end. Throws `COMMAND_FAILED` when its exit status is not 0, `TIMEOUT` (exit status 124),
 * `TOO_MUCH_OUTPUT`, or the signal's reason; the program is killed in the last three cases.
 */
export async function run(machine: Machine, argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const stop = new AbortController()
  const command = { machine, argv, stdout: new Output(), stderr: new Output() }

  const { timeoutMs, signal, maxOutput = 16 << 20 } = options
  const timedOut = () => stop.abort(failure(command, 'TIMEOUT', `did not end within ${Number(timeoutMs) / 1000} s`))
  const timer = timeoutMs === undefined ? undefined : setTimeout(timedOut, timeoutMs)
  const aborted = () => stop.abort(signal?.reason)
  signal?.addEventListener('abort', aborted)
  if (signal?.aborted) aborted()
  const tooMuch = () => stop.abort(failure(command, 'TOO_MUCH_OUTPUT', `wrote more than ${maxOutput} bytes`))

  try {
    stop.signal.throwIfAborted()
    const child = await machine.spawn(argv, { env: options.env, cwd: options.cwd, signal: stop.signal })
    command.stdout.collect(child.stdout, maxOutput, tooMuch)
    command.stderr.collect(child.stderr, maxOutput, tooMuch)
    child.stdin.end(options.input)
    const exit = await ended(child, stop.signal)
    if (exit.code !== 0 && !options.allowFailure) throw failed(command, exit)
    return { stdout: command.stdout.text(), stderr: command.stderr.text(), exit }
  } catch (error) {
    // Being killed shows as an exit or as a failed start: the reason is what counts.
    stop.signal.throwIfAborted()
    throw error
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', aborted)
  }
}

/** A program that was killed may leave children that keep its pipes open: its end is not waited for long. */
async function ended(child: Process, stop: AbortSignal): Promise<Exit> {
  const stopped = new Promise<'stopped'>((resolve) => {
    if (stop.aborted) resolve('stopped')
    stop.addEventListener('abort', () => resolve('stopped'), { once: true })
  })
  const result = await Promise.race([child.exited, stopped])
  if (result !== 'stopped') return result
  await Promise.race([child.exited, sleep(500, undefined, { ref: false })]).catch(() => {})
  for (const stream of [child.stdin, child.stdout, child.stderr]) stream.destroy()
  throw stop.reason
}

interface Command {
  machine: Machine
  argv: readonly string[]
  stdout: Output
  stderr: Output
}

function failed(command: Command, exit: Exit): NestvmError {
  const how = exit.code === null ? `was ended by ${exit.signal}` : `failed with exit status ${exit.code}`
  const why = command.stderr.tail().trim().split('\n').at(-1)
  return failure(command, 'COMMAND_FAILED', why ? `${how}: ${why}` : how, exit)
}

function failure({ machine, argv, stdout, stderr }: Command, code: string, what: string, exit?: Exit): NestvmError {
  const where = machine.name === 'host' ? '' : ` on ${machine.name}`
  return new NestvmError(code, `${argv[0]}${where} ${what}`, {
    exitStatus: code === 'TIMEOUT' ? 124 : undefined,
    details: { machine: machine.name, argv, exit, stdout: stdout.tail(), stderr: stderr.tail() },
  })
}

class Output {
  private chunks: Buffer[] = []
  private size = 0

  collect(stream: Readable, limit: number, overflow: () => void): void {
    stream.on('error', () => {})
    stream.on('data', (chunk: Buffer) => {
      const within = this.size <= limit
      this.size += chunk.length
      if (this.size <= limit) this.chunks.push(chunk)
      else if (within) overflow()
    })
  }

  text(): string {
    return Buffer.concat(this.chunks).toString()
  }

  /** Enough for a message. */
  tail(): string {
    return this.text().slice(-2000)
  }
}
