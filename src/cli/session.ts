import type { Context } from '../stack/context.ts'
import { NestvmError } from '../store/error.ts'

export interface Session {
  context: Context
  /** Set while a program of the user's runs: the first Ctrl-C is its. */
  onInterrupt: (() => void) | undefined
  /** Stops the work as Ctrl-C does, but for this reason. */
  stop(reason: NestvmError): void
}

/**
 * Runs one command's work and ends the process with its exit status. The first Ctrl-C aborts `context.signal`, so that
 * the work stops cleanly; a second one ends the process at once, and the next command cleans up.
 */
export async function session(json: boolean, work: (session: Session) => Promise<number | undefined>): Promise<never> {
  const { Context } = await import('../stack/context.ts')
  const { reap } = await import('../stack/reap.ts')
  const abort = new AbortController()
  const context = new Context(abort.signal)
  const own: Session = { context, onInterrupt: undefined, stop: (reason) => abort.abort(reason) }
  let interrupts = 0
  const interrupt = (signal: NodeJS.Signals) => {
    const status = signal === 'SIGINT' ? 130 : signal === 'SIGTERM' ? 143 : 129
    if (++interrupts > 1) process.exit(status)
    if (own.onInterrupt && signal === 'SIGINT') return own.onInterrupt()
    abort.abort(new NestvmError('INTERRUPTED', `stopped by ${signal}`, { exitStatus: status }))
  }
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, interrupt)
  surviveClosedOutput(abort)
  let status: number
  try {
    await reap(context)
    status = (await work(own)) ?? 0
  } catch (error) {
    status = report(abort.signal.aborted ? abort.signal.reason : error, json)
  }
  await context[Symbol.asyncDispose]()
  await drained()
  process.exit(status)
}

/** Says what went wrong and returns the exit status for it. */
function report(error: unknown, json: boolean): number {
  const known = error instanceof NestvmError ? error : undefined
  const message = error instanceof Error ? error.message : String(error)
  if (json) {
    const { code = 'INTERNAL', hint, details } = known ?? {}
    process.stdout.write(`${JSON.stringify({ error: { code, message, hint, details } })}\n`)
  } else {
    process.stderr.write(`nestvm: ${message}\n`)
    if (known?.hint) process.stderr.write(`  try: ${known.hint}\n`)
    if (!known && error instanceof Error && error.stack) process.stderr.write(`${error.stack}\n`)
  }
  return known?.exitStatus ?? 125
}

export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`)
}

/** Whoever reads our output may stop reading (`| head`): that ends the work as SIGPIPE would. */
function surviveClosedOutput(abort: AbortController): void {
  process.stdout.on('error', () => {
    abort.abort(new NestvmError('OUTPUT_CLOSED', 'nobody reads the output any more', { exitStatus: 141 }))
  })
  process.stderr.on('error', () => {})
}

/** process.exit() would drop what a pipe has not taken yet. */
async function drained(): Promise<void> {
  for (const stream of [process.stdout, process.stderr]) {
    if (stream.writableLength > 0 && !stream.destroyed) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 2000)
        stream.write('', () => {
          clearTimeout(timer)
          resolve()
        })
      })
    }
  }
}
