import { once } from 'node:events'
import type { Socket } from 'node:net'
import { timeLimit } from '../machine/limit.ts'
import { NestvmError } from '../store/error.ts'
import { median } from './report.ts'

/** What a guest does with a connection: busybox's nc makes it the program's input and output. */
export type Service = 'take' | 'give' | 'echo'

export interface Amounts {
  megabytes: number
  roundTrips: number
}

export function programOf(service: Service, { megabytes }: Amounts): string {
  if (service === 'echo') return 'cat'
  if (service === 'give') return `dd if=/dev/zero bs=64k count=${megabytes * 16}`
  // Only what says so has all arrived.
  return "sh -c 'dd of=/dev/null bs=64k; echo done'"
}

/**
 * This host's end of a connection to the service, and what it measured: MB/s, or milliseconds of a round trip.
 * Throws `BENCH_FAILED`.
 */
export async function measureService(service: Service, socket: Socket, amounts: Amounts, signal: AbortSignal) {
  const stop = AbortSignal.any([signal, timeLimit(limitMs)])
  socket.setNoDelay().on('error', () => {})
  stop.addEventListener('abort', () => socket.destroy(), { once: true })
  try {
    return service === 'echo'
      ? await roundTrip(socket, amounts.roundTrips, stop)
      : await throughput(service, socket, amounts.megabytes, stop)
  } catch (error) {
    signal.throwIfAborted()
    const what = `a connection to a guest broke, or took more than ${limitMs / 1000} s`
    throw error instanceof NestvmError ? error : new NestvmError('BENCH_FAILED', what, { cause: error })
  } finally {
    socket.destroy()
  }
}

const limitMs = 120_000

async function throughput(service: Service, socket: Socket, megabytes: number, signal: AbortSignal): Promise<number> {
  const bytes = megabytes << 20
  let received = 0
  socket.on('data', (chunk: Buffer) => {
    received += chunk.length
  })
  const begun = performance.now()
  if (service === 'take') socket.end(Buffer.alloc(bytes))
  await once(socket, 'end', { signal })
  const expected = service === 'take' ? 'done\n'.length : bytes
  if (received === expected) return (1000 * megabytes) / (performance.now() - begun)
  throw new NestvmError('BENCH_FAILED', `${received} bytes came from a guest rather than ${expected}`)
}

async function roundTrip(socket: Socket, turns: number, signal: AbortSignal): Promise<number> {
  const request = Buffer.alloc(64, 'x')
  const times: number[] = []
  for (let turn = 0; turn < turns; turn++) {
    const begun = performance.now()
    socket.write(request)
    for (let received = 0; received < request.length; ) {
      const [chunk]: Buffer[] = await once(socket, 'data', { signal })
      received += chunk?.length ?? 0
    }
    times.push(performance.now() - begun)
  }
  return median(times)
}

/** The mean of round trips, in milliseconds, of what busybox's ping says at its end. Undefined when none came back. */
export function parsePing(output: string): number | undefined {
  const mean = /^round-trip min\/avg\/max = [\d.]+\/([\d.]+)\/[\d.]+ ms$/m.exec(output)?.[1]
  return mean === undefined ? undefined : Number(mean)
}
