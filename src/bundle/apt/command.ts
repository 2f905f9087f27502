import { createInterface } from 'node:readline'
import { text } from 'node:stream/consumers'
import type { Machine, Process } from '../../machine/machine.ts'
import { NestvmError } from '../../store/error.ts'
import { explainApt } from './explain.ts'

export interface AptOptions {
  /** Absent: the host's own configuration. */
  config?: string
  cwd?: string
  signal?: AbortSignal
  timeoutMs: number
  /** Called with the share of the bytes that have arrived, 0 to 100. */
  onPercent?: (percent: number) => void
}

/**
 * Runs one of apt's programs and gives its standard output. Throws what `explainApt` makes of its messages, also when
 * it says that something failed but exits with 0; `MIRROR_UNREACHABLE` when nothing arrives for two minutes; or the
 * signal's reason.
 */
export async function apt(machine: Machine, argv: readonly string[], options: AptOptions): Promise<string> {
  const limits = new Limits(argv, options.timeoutMs)
  const signals = [limits.signal, ...(options.signal ? [options.signal] : [])]
  try {
    const child = await start(machine, argv, options, AbortSignal.any(signals))
    child.stdin.end()
    const output =
      options.onPercent === undefined ? text(child.stdout) : followDownload(child, limits, options.onPercent)
    const [stdout, messages, exit] = await Promise.all([output, text(child.stderr), child.exited])
    const problem = explainApt(argv, messages, exit.code === 0)
    if (problem !== undefined) throw problem
    return stdout
  } catch (error) {
    // A program that was killed has messages too, but not the reason.
    options.signal?.throwIfAborted()
    limits.signal.throwIfAborted()
    throw error
  } finally {
    limits.clear()
  }
}

/** `dlstatus:3:71.0351:Retrieving file 3 of 3`, twice a second whether anything arrives or not. */
export function downloadPercent(line: string): number | undefined {
  const match = /^dlstatus:\d+:([\d.]+):/.exec(line)
  return match === null ? undefined : Number(match[1])
}

async function followDownload(child: Process, limits: Limits, onPercent: (percent: number) => void): Promise<string> {
  let last: number | undefined
  for await (const line of createInterface({ input: child.stdout })) {
    const percent = downloadPercent(line)
    if (percent === undefined || percent === last) continue
    last = percent
    limits.moved()
    onPercent(percent)
  }
  return ''
}

/** apt's own time-outs and retries add up per file: a mirror that accepts connections and says nothing takes minutes. */
class Limits {
  private readonly controller = new AbortController()
  readonly signal = this.controller.signal
  private readonly total: NodeJS.Timeout
  private stall: NodeJS.Timeout

  constructor(
    private readonly argv: readonly string[],
    timeoutMs: number,
  ) {
    this.total = setTimeout(() => this.stop(`did not finish within ${timeoutMs / 1000} s`), timeoutMs)
    this.stall = this.startStall()
  }

  moved(): void {
    clearTimeout(this.stall)
    this.stall = this.startStall()
  }

  clear(): void {
    clearTimeout(this.total)
    clearTimeout(this.stall)
  }

  private startStall(): NodeJS.Timeout {
    return setTimeout(() => this.stop('got nothing from the mirror for two minutes'), 120_000)
  }

  private stop(what: string): void {
    const error = new NestvmError('MIRROR_UNREACHABLE', `${this.argv[0]} ${what}`, {
      hint: 'check the network and the proxy, or set NESTVM_MIRROR; then run `nestvm setup` again: it goes on from here',
      details: { argv: this.argv },
    })
    this.controller.abort(error)
  }
}

async function start(
  machine: Machine,
  argv: readonly string[],
  { config, cwd }: AptOptions,
  signal: AbortSignal,
): Promise<Process> {
  // Messages are matched, so they must not be translated.
  const env = { LC_ALL: 'C.UTF-8', LANGUAGE: '', ...(config === undefined ? {} : { APT_CONFIG: config }) }
  try {
    return await machine.spawn(argv, { env, cwd, signal })
  } catch (error) {
    if (!(error instanceof NestvmError) || error.code !== 'NOT_FOUND') throw error
    throw new NestvmError(
      'APT_MISSING',
      `${argv[0]} is not on this host: the packages of the bundle come through apt`,
      {
        hint: 'install apt, which most distributions carry, or run nestvm on Debian or Ubuntu',
        details: { program: argv[0] },
        cause: error,
      },
    )
  }
}
