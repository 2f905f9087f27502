import { randomBytes } from 'node:crypto'
import type { Client } from './client.ts'
import { fail } from './error.ts'
import { maxMessage } from './protocol.ts'
import type { Reader, Writer } from './xdr.ts'

/** What both sides keep to: of the channel from client to server. */
export interface ChannelLimits {
  maxRequest: number
  maxResponse: number
  maxCached: number
  maxOperations: number
  slots: number
}

/**
 * One call at a time; remembers the answer to the last one, so that a call which comes again after a broken connection
 * is answered again and not done again.
 */
interface Slot {
  sequence: number
  /** Absent when it was too long to keep. */
  answer?: Promise<Writer> | Writer
}

export class Session {
  readonly id = randomBytes(16)
  private readonly slots: Slot[]

  constructor(
    readonly client: Client,
    readonly limits: ChannelLimits,
  ) {
    this.slots = Array.from({ length: limits.slots }, () => ({ sequence: 0 }))
  }

  /** Does the work once for each sequence number of a slot. Throws `BADSLOT`, `SEQ_MISORDERED`, `RETRY_UNCACHED_REP`. */
  async once(slotId: number, sequence: number, keep: boolean, work: () => Promise<Writer>): Promise<Writer> {
    const slot = this.slots[slotId] ?? fail('BADSLOT')
    if (sequence === slot.sequence) return slot.answer ?? fail('RETRY_UNCACHED_REP')
    if (sequence !== (slot.sequence + 1) >>> 0) fail('SEQ_MISORDERED')
    // The client uses a slot again only when it has the answer; one that does not could be answered twice.
    if (slot.answer instanceof Promise) fail('SEQ_MISORDERED')
    slot.sequence = sequence
    const answer = work()
    slot.answer = answer
    const result = await answer
    const short = result.length <= (keep ? this.limits.maxCached : alwaysKept)
    slot.answer = short ? result : undefined
    return result
  }
}

/** Bytes. Answers as short as this are kept also when the client does not ask for it. */
const alwaysKept = 1024

const own: ChannelLimits = {
  maxRequest: maxMessage,
  maxResponse: maxMessage,
  maxCached: 8192,
  maxOperations: 32,
  slots: 32,
}

/** The smaller of what the client wants and what this server offers. */
export function readChannel(args: Reader): ChannelLimits {
  args.u32()
  const wanted = Array.from({ length: 5 }, () => args.u32())
  args.array(1, () => args.u32())
  const [maxRequest = 0, maxResponse = 0, maxCached = 0, maxOperations = 0, slots = 0] = wanted
  return {
    maxRequest: Math.min(maxRequest, own.maxRequest),
    maxResponse: Math.min(maxResponse, own.maxResponse),
    maxCached: Math.min(maxCached, own.maxCached),
    maxOperations: Math.min(maxOperations, own.maxOperations),
    slots: Math.max(1, Math.min(slots, own.slots)),
  }
}

export function writeChannel(reply: Writer, limits: ChannelLimits): void {
  reply.u32(0)
  for (const key of ['maxRequest', 'maxResponse', 'maxCached', 'maxOperations', 'slots'] as const) {
    reply.u32(limits[key])
  }
  reply.u32(0)
}
