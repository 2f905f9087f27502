import { timeLimit } from '../machine/limit.ts'
import type { Machine, Process } from '../machine/machine.ts'
import { levelLimitMs } from '../stack/plan.ts'
import type { StartedGuest } from '../stack/start.ts'
import { NestvmError } from '../store/error.ts'
import { median } from './report.ts'

/**
 * A shell in a guest, which is given one script after the other: what is timed starts no shell of its own, and this
 * host's clock counts rather than the guest's. It ends with the guest. A script that reads takes the next script's text: give it /dev/null.
 */
export class Shell {
  private stdout = ''
  private stderr = ''
  private heard = () => {}
  private ended = false

  private constructor(
    private readonly machine: Machine,
    private readonly process: Process,
    private readonly limitMs: number,
    private readonly signal: AbortSignal,
  ) {
    const { stdout, stderr, stdin, exited } = process
    stdin.on('error', () => {})
    stdout.on('data', (chunk: Buffer) => {
      this.stdout += chunk
      this.heard()
    })
    stderr.on('data', (chunk: Buffer) => {
      this.stderr = (this.stderr + chunk).slice(-2000)
    })
    const end = () => {
      this.ended = true
      this.heard()
    }
    exited.then(end, end)
  }

  static async open({ machine, record }: StartedGuest, signal: AbortSignal): Promise<Shell> {
    return new Shell(machine, await machine.spawn(['sh'], { signal }), levelLimitMs(record.level, 'tcg'), signal)
  }

  /** What it wrote to stdout. Throws `BENCH_FAILED` when its status is not 0. */
  async run(script: string): Promise<string> {
    this.stdout = ''
    this.stderr = ''
    this.process.stdin.write(`${script}\necho "${mark} $?"\n`)
    const limit = timeLimit(this.limitMs)
    const stop = AbortSignal.any([this.signal, limit])
    for (;;) {
      const [, output = '', status] = answer.exec(this.stdout) ?? []
      if (status === '0') return output
      if (status !== undefined || this.ended) throw this.failed(script, `failed: ${this.stderr.trim()}`)
      await this.news(stop).catch(() => {
        this.signal.throwIfAborted()
        throw this.failed(script, `did not end within ${this.limitMs / 1000} s`)
      })
    }
  }

  /** Milliseconds; the median of so many turns, each after `before`. */
  async time(script: string, { repeat = 1, before }: { repeat?: number; before?: () => Promise<unknown> } = {}) {
    const times: number[] = []
    for (let turn = 0; turn < repeat; turn++) {
      await before?.()
      const begun = performance.now()
      await this.run(script)
      times.push(performance.now() - begun)
    }
    return median(times)
  }

  private news(stop: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const aborted = () => reject(stop.reason)
      this.heard = () => {
        stop.removeEventListener('abort', aborted)
        resolve()
      }
      if (stop.aborted) aborted()
      else stop.addEventListener('abort', aborted, { once: true })
    })
  }

  private failed(script: string, how: string): NestvmError {
    return new NestvmError('BENCH_FAILED', `a measurement on ${this.machine.name} ${how}`, { details: { script } })
  }
}

const mark = 'nestvm-bench-done'
const answer = new RegExp(`^([^]*)${mark} (\\d+)\\n`)

/** Empties the guest's caches of files. */
export const dropCaches = 'sync; echo 3 > /proc/sys/vm/drop_caches'
