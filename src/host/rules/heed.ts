import { NestvmError } from '../../store/error.ts'
import type { Rule } from './table.ts'

/** What a rule may speak against. */
export interface Intent {
  /** As a sentence that tells that it was not done: `a/b cannot move to c`. */
  what: string
  /** What was seen that the rule goes by. */
  seen?: string
  /** The command for the rule's way out. */
  command?: string
  /** What is untested is accepted, and the command that accepts it. */
  force: boolean
  forceCommand: string
  details?: Record<string, unknown>
}

const codes = {
  'nested-state': { untested: 'NESTED_STATE_LOST', lost: 'NESTED_STATE_LOST' },
  qemu: { untested: 'NOT_KNOWN_SAFE', lost: 'NOT_KNOWN_SAFE' },
  processor: { untested: 'NOT_KNOWN_SAFE', lost: 'PROCESSOR_MISMATCH' },
}

/** Throws `NESTED_STATE_LOST`, `PROCESSOR_MISMATCH` or `NOT_KNOWN_SAFE` where the rule is against it. */
export function heed(
  { id, aspect, verdict, why, wayOut, source }: Rule,
  { what, seen, command, force, forceCommand, details }: Intent,
): void {
  if (verdict === 'safe' || (verdict === 'untested' && force)) return
  const ways = [`${wayOut}${command ? `: ${command}` : ''}`, ...(verdict === 'untested' ? [forceCommand] : [])]
  throw new NestvmError(codes[aspect][verdict], `${what}: ${why} (rule ${id}${seen ? `: ${seen}` : ''})`, {
    hint: ways.join(', or: '),
    details: { rule: id, verdict, source, ...details },
  })
}
