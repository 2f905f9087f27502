import { type Call, client, type Operation } from '../call.ts'
import { fail } from '../error.ts'
import { readChannel, Session, writeChannel } from '../session.ts'
import { type Reader, Writer } from '../xdr.ts'

const exchangeFlag = { withoutPnfs: 0x10000, update: 0x4000_0000, confirmed: 0x8000_0000 }

/** A client says who it is. The same owner with another verifier has started anew, and holds nothing any more. */
export const exchangeId: Operation = (call, args, reply) => {
  const verifier = args.fixed(8).toString('hex')
  const owner = args.opaque(1024).toString('latin1')
  const flags = args.u32()
  // State protection needs Kerberos.
  if (args.u32() !== 0) fail('NOTSUPP')
  const { clients, name } = call.server

  const confirmed = clients.find(owner, true)
  const same = confirmed?.verifier === verifier
  if (flags & exchangeFlag.update && !same) fail(confirmed ? 'NOT_SAME' : 'NOENT')
  const unconfirmed = clients.find(owner, false)
  if (unconfirmed) clients.remove(unconfirmed)
  const found = confirmed && same ? confirmed : clients.add(owner, verifier)
  found.seen()

  reply.u64(found.id)
  reply.u32(found.sequence)
  reply.u32(exchangeFlag.withoutPnfs | (found.confirmed ? exchangeFlag.confirmed : 0))
  reply.u32(0)
  // Its minor and major name, and the scope of its handles.
  reply.u64(0)
  reply.opaque(name)
  reply.opaque(name)
  reply.u32(0)
}

const maxSessions = 8

/** Confirms the client. The last one of its calls is answered again when it comes again. */
export const createSession: Operation = (call, args, reply) => {
  const { clients, sessions } = call.server
  const found = clients.get(args.u64()) ?? fail('STALE_CLIENTID')
  const sequence = args.u32()
  args.u32()
  const limits = readChannel(args)
  const back = readChannel(args)
  if (sequence + 1 === found.sequence && found.created) return reply.fixed(found.created)
  if (sequence !== found.sequence) fail('SEQ_MISORDERED')
  if (found.sessions.size >= maxSessions) fail('DELAY')
  if (!found.confirmed) {
    const before = clients.find(found.owner, true)
    if (before) clients.remove(before)
    found.confirmed = true
  }
  const session = new Session(found, limits)
  sessions.set(session.id.toString('hex'), session)
  found.sessions.set(session.id.toString('hex'), session)
  found.sequence++
  found.seen()

  const answer = new Writer()
  answer.fixed(session.id)
  answer.u32(sequence)
  // No callbacks: there is nothing to recall.
  answer.u32(0)
  writeChannel(answer, limits)
  writeChannel(answer, back)
  found.created = Buffer.concat(answer.finish())
  reply.fixed(found.created)
}

export const bindConnection: Operation = (call, args, reply) => {
  const id = args.fixed(16)
  if (!call.server.sessions.has(id.toString('hex'))) fail('BADSESSION')
  args.u32()
  reply.fixed(id)
  // For calls from the client only.
  reply.u32(1)
  reply.bool(false)
}

export const destroySession: Operation = (call, args) => {
  const key = args.fixed(16).toString('hex')
  const session = call.server.sessions.get(key) ?? fail('BADSESSION')
  call.server.sessions.delete(key)
  session.client.sessions.delete(key)
}

export const destroyClient: Operation = ({ server }, args) => {
  const found = server.clients.get(args.u64()) ?? fail('STALE_CLIENTID')
  if (found.sessions.size > 0 || found.states.size > 0) fail('CLIENTID_BUSY')
  server.clients.remove(found)
}

export const reclaimComplete: Operation = (call, args) => {
  const oneFileSystem = args.bool()
  const found = client(call)
  if (oneFileSystem) return
  if (found.reclaimComplete) fail('COMPLETE_ALREADY')
  found.reclaimComplete = true
}

export interface Sequence {
  session: Session
  sequence: number
  slot: number
  keep: boolean
}

/** SEQUENCE: names the session that the rest of the call belongs to. */
export function readSequence({ server }: Pick<Call, 'server'>, args: Reader): Sequence {
  const session = server.sessions.get(args.fixed(16).toString('hex')) ?? fail('BADSESSION')
  const sequence = args.u32()
  const slot = args.u32()
  args.u32()
  const keep = args.bool()
  session.client.seen()
  return { session, sequence, slot, keep }
}

export function writeSequence(reply: Writer, { session, sequence, slot }: Sequence): void {
  const highest = session.limits.slots - 1
  reply.fixed(session.id)
  for (const word of [sequence, slot, highest, highest, 0]) reply.u32(word)
}
