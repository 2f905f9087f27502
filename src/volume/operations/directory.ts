import { writeAttributeError, writeAttributes } from '../attributes.ts'
import { asDirectory, type Call, currentTarget, describe, type Operation, top } from '../call.ts'
import { fail, statusOf } from '../error.ts'
import type { Inode } from '../inode.ts'
import type { Entry } from '../listing.ts'
import { want } from '../permission.ts'
import { maxIo, status } from '../protocol.ts'
import { Writer } from '../xdr.ts'

/** Cookies keep their meaning for good, so the verifier never changes. */
const verifier = Buffer.alloc(8)

export const readDirectory: Operation = (call, args, reply) => {
  const cookie = args.u64()
  args.fixed(8)
  args.u32()
  const room = Math.min(args.u32(), call.room, maxIo)
  const wanted = args.bitmap()
  const target = currentTarget(call)
  const dir = target === top ? undefined : asDirectory(target)
  if (dir) call.server.permissions.need(call.caller, dir, want.read)

  const entries = dir ? call.server.listings.after(dir, cookie) : exportsAfter(call, cookie)
  reply.fixed(verifier)
  let written = 0
  let complete = true
  for (const entry of entries) {
    const text = new Writer()
    if (!writeEntry(call, dir, entry, wanted, text)) continue
    // The verifier, this entry, the end of the list and its flag have to fit.
    if (reply.length + text.length + 12 > room) {
      if (written === 0) fail('TOOSMALL')
      complete = false
      break
    }
    reply.append(text)
    written++
  }
  reply.bool(false)
  reply.bool(complete)
}

/** False for an entry that is gone by now. */
function writeEntry(
  call: Call,
  dir: Inode | undefined,
  { name, cookie }: Entry,
  wanted: ReadonlySet<number>,
  text: Writer,
): boolean {
  text.bool(true)
  text.u64(cookie)
  text.name(name)
  try {
    if (wanted.size === 0) writeAttributeError(text, 0)
    else writeAttributes(text, wanted, describeEntry(call, dir, name))
    return true
  } catch (error) {
    const reason = statusOf(error)
    if (reason === status.NOENT || reason === status.STALE) return false
    writeAttributeError(text, reason)
    return true
  }
}

function describeEntry(call: Call, dir: Inode | undefined, name: string) {
  const { tree } = call.server
  if (!dir) return describe(call, tree.root(name))
  const { inode, stats } = tree.child(dir, name)
  return describe(call, inode, stats)
}

function exportsAfter(call: Call, cookie: bigint): Entry[] {
  const all = call.server.tree.exports().map((root, index) => ({
    name: root.exported.name,
    cookie: BigInt(index + 3),
  }))
  return all.filter((entry) => entry.cookie > cookie)
}
