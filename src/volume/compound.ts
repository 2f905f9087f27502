import type { Call, Operation, Server } from './call.ts'
import { fail, type Status, statusOf } from './error.ts'
import * as attributes from './operations/attributes.ts'
import { readDirectory } from './operations/directory.ts'
import * as entries from './operations/entries.ts'
import * as handles from './operations/handles.ts'
import * as io from './operations/io.ts'
import * as lock from './operations/lock.ts'
import * as open from './operations/open.ts'
import * as session from './operations/session.ts'
import * as state from './operations/state.ts'
import { knownOperations, maxMessage, minorVersion, operation, status } from './protocol.ts'
import type { Caller } from './rpc.ts'
import { type Reader, Writer } from './xdr.ts'

/** COMPOUND: operations that are done in turn until one fails. */
export async function compound(server: Server, args: Reader, caller: Caller): Promise<Writer> {
  const tag = Buffer.from(args.opaque(1024))
  const minor = args.u32()
  const count = args.u32()
  if (minor !== minorVersion) return answer(status.MINOR_VERS_MISMATCH, tag, 0, new Writer())
  if (count === 0) return answer(status.OK, tag, 0, new Writer())
  const first = args.u32()
  if (first === operation.SEQUENCE) return inSession(server, args, caller, tag, count)
  if (!withoutSession.has(first)) return failed(tag, first, known(first) ? 'OP_NOT_IN_SESSION' : 'OP_ILLEGAL')
  if (count > 1) return failed(tag, first, 'NOT_ONLY_OP')
  const call = newCall(server, caller, undefined)
  return perform(call, args, tag, { first, count, results: new Writer(), done: 0 })
}

async function inSession(server: Server, args: Reader, caller: Caller, tag: Buffer, count: number): Promise<Writer> {
  try {
    const sequence = session.readSequence({ server }, args)
    const { limits } = sequence.session
    return await sequence.session.once(sequence.slot, sequence.sequence, sequence.keep, async () => {
      if (count > limits.maxOperations) return failed(tag, operation.SEQUENCE, 'TOO_MANY_OPS')
      const results = new Writer()
      results.u32(operation.SEQUENCE)
      results.u32(status.OK)
      session.writeSequence(results, sequence)
      const call = newCall(server, caller, sequence.session)
      return perform(call, args, tag, { first: undefined, count, results, done: 1 })
    })
  } catch (error) {
    return failed(tag, operation.SEQUENCE, statusOf(error))
  }
}

interface Progress {
  /** The number of the next operation, where it has been read already. */
  first: number | undefined
  count: number
  results: Writer
  done: number
}

async function perform(call: Call, args: Reader, tag: Buffer, progress: Progress): Promise<Writer> {
  const { count, results } = progress
  const limit = Math.min(call.session?.limits.maxResponse ?? maxMessage, maxMessage)
  for (let { first, done } = progress; done < count; first = undefined, done++) {
    call.room = limit - results.length - tag.length - overhead
    const { number, result, body } = await performOne(call, args, first)
    results.u32(number)
    results.u32(result)
    results.append(body)
    if (result !== status.OK) return answer(result, tag, done + 1, results)
  }
  return answer(status.OK, tag, count, results)
}

/**
 * Bytes of an answer besides tag and results: the header of the call, 24; status, lengths and count, 12; an operation's
 * number and status, 8; padding. Linux leaves room for no more than that next to the longest READ.
 */
const overhead = 48

async function performOne(call: Call, args: Reader, read: number | undefined) {
  let number: number = operation.ILLEGAL
  const body = new Writer()
  try {
    const wanted = read ?? args.u32()
    number = known(wanted) ? wanted : operation.ILLEGAL
    const perform = operations[wanted] ?? fail(known(wanted) ? 'NOTSUPP' : 'OP_ILLEGAL')
    if (call.room < 0) fail('REP_TOO_BIG')
    await perform(call, args, body)
    return { number, result: status.OK, body }
  } catch (error) {
    return { number, result: statusOf(error), body: failureBody(number, error) }
  }
}

/** Two operations say more than that they failed. */
function failureBody(number: number, error: unknown): Writer {
  const body = new Writer()
  if (error instanceof lock.Denied) error.write(body)
  else if (number === operation.SETATTR) body.bitmap([])
  return body
}

function answer(result: Status, tag: Buffer, count: number, results: Writer): Writer {
  const reply = new Writer()
  reply.u32(result)
  reply.opaque(tag)
  reply.u32(count)
  reply.append(results)
  return reply
}

function failed(tag: Buffer, number: number, reason: keyof typeof status | Status): Writer {
  const result = typeof reason === 'string' ? status[reason] : reason
  const results = new Writer()
  results.u32(known(number) ? number : operation.ILLEGAL)
  results.u32(result)
  return answer(result, tag, 1, results)
}

function newCall(server: Server, caller: Caller, own: Call['session']): Call {
  const nothing = { current: undefined, saved: undefined, stateId: undefined, savedStateId: undefined }
  return { server, caller, session: own, ...nothing, room: 0 }
}

function known(number: number): boolean {
  return number >= knownOperations.first && number <= knownOperations.last
}

const withoutSession = new Set<number>([
  operation.EXCHANGE_ID,
  operation.CREATE_SESSION,
  operation.DESTROY_SESSION,
  operation.BIND_CONN_TO_SESSION,
  operation.DESTROY_CLIENTID,
])

const operations: Partial<Record<number, Operation>> = {
  [operation.ACCESS]: attributes.mayAccess,
  [operation.CLOSE]: open.close,
  [operation.COMMIT]: io.commit,
  [operation.CREATE]: entries.create,
  [operation.GETATTR]: attributes.getAttributes,
  [operation.GETFH]: handles.getHandle,
  [operation.LINK]: entries.link,
  [operation.LOCK]: lock.lockRange,
  [operation.LOCKT]: lock.testLock,
  [operation.LOCKU]: lock.unlockRange,
  [operation.LOOKUP]: handles.lookup,
  [operation.LOOKUPP]: handles.lookupParent,
  [operation.NVERIFY]: attributes.verifyNot,
  [operation.OPEN]: open.open,
  [operation.OPEN_DOWNGRADE]: open.downgrade,
  [operation.PUTFH]: handles.putHandle,
  [operation.PUTPUBFH]: handles.putRoot,
  [operation.PUTROOTFH]: handles.putRoot,
  [operation.READ]: io.readFile,
  [operation.READDIR]: readDirectory,
  [operation.READLINK]: attributes.readLink,
  [operation.REMOVE]: entries.remove,
  [operation.RENAME]: entries.rename,
  [operation.RESTOREFH]: handles.restore,
  [operation.SAVEFH]: handles.save,
  [operation.SECINFO]: handles.security,
  [operation.SETATTR]: attributes.setAttributes,
  [operation.VERIFY]: attributes.verify,
  [operation.WRITE]: io.writeFile,
  [operation.BIND_CONN_TO_SESSION]: session.bindConnection,
  [operation.EXCHANGE_ID]: session.exchangeId,
  [operation.CREATE_SESSION]: session.createSession,
  [operation.DESTROY_SESSION]: session.destroySession,
  [operation.FREE_STATEID]: state.freeState,
  [operation.SECINFO_NO_NAME]: handles.securityOfCurrent,
  [operation.TEST_STATEID]: state.testStates,
  [operation.DESTROY_CLIENTID]: session.destroyClient,
  [operation.RECLAIM_COMPLETE]: session.reclaimComplete,
}
