import { stat } from 'node:fs/promises'
import { posix, resolve } from 'node:path'
import * as z from 'zod'
import { NestvmError } from '../store/error.ts'

/** A directory of this host that a guest sees. */
export const volumeSchema = z.object({
  /** Absolute, here and in the guest. */
  dir: z.string(),
  path: z.string(),
  readOnly: z.boolean(),
})

export type Volume = z.infer<typeof volumeSchema>

/** `HOST:GUEST[:ro]`; a relative HOST is taken from the current directory. Throws `BAD_VOLUME`. */
export function parseVolume(text: string): Volume {
  const [host = '', guest = '', mode = 'rw', ...rest] = text.split(':')
  const known = mode === 'ro' || mode === 'rw'
  if (host === '' || !guest.startsWith('/') || posix.normalize(guest) === '/' || !known || rest.length > 0) {
    throw new NestvmError('BAD_VOLUME', `${JSON.stringify(text)} does not name a volume`, {
      hint: 'write HOST:GUEST or HOST:GUEST:ro, GUEST being an absolute path',
      exitStatus: 2,
    })
  }
  return { dir: resolve(host), path: posix.normalize(guest), readOnly: mode === 'ro' }
}

/** Throws `NO_SUCH_DIRECTORY`. */
export async function checkVolume({ dir }: Volume): Promise<void> {
  const found = await stat(dir).catch(() => undefined)
  if (found?.isDirectory()) return
  throw new NestvmError('NO_SUCH_DIRECTORY', `${dir} is ${found ? 'no directory' : 'not there'}`, {
    hint: found ? 'volumes are directories; nestvm cp copies files' : `mkdir -p ${dir}`,
    details: { path: dir },
  })
}
