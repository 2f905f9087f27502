import { client, type Operation, readStateId, stateFor } from '../call.ts'
import { fail, statusOf } from '../error.ts'
import { status } from '../protocol.ts'

export const testStates: Operation = (call, args, reply) => {
  const ids = args.array(1024, () => readStateId(args))
  reply.u32(ids.length)
  for (const id of ids) {
    let found: number = status.OK
    try {
      stateFor(call, id)
    } catch (error) {
      found = statusOf(error)
    }
    reply.u32(found)
  }
}

/** Only of locks that are all released: an open is closed. */
export const freeState: Operation = (call, args) => {
  const { id } = readStateId(args)
  const { states } = call.server
  const state = client(call).states.get(id) ?? fail('BAD_STATEID')
  if (state.kind === 'open' || states.holdsLocks(state)) fail('LOCKS_HELD')
  states.freeLocks(state)
}
