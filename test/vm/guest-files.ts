import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import type { Arch } from '../../src/host/arch.ts'

/** The plain files of the guests' initramfs whose names match, whose format is that of src/bundle/cpio.ts. */
export function guestFiles(arch: Arch, wanted: RegExp): Map<string, Buffer> {
  const bundle = join(process.env.XDG_DATA_HOME ?? join(homedir(), '.local/share'), 'nestvm/bundle')
  const pointer: { directory: string } = JSON.parse(readFileSync(join(bundle, `current-guest-${arch}.json`), 'utf8'))
  const archive = readFileSync(join(bundle, pointer.directory, 'base.cpio'))
  const found = new Map<string, Buffer>()
  for (let at = 0; archive.toString('latin1', at, at + 6) === '070701'; ) {
    const field = (index: number) =>
      Number.parseInt(archive.toString('latin1', at + 6 + 8 * index, at + 14 + 8 * index), 16)
    const [mode, size, nameSize] = [field(1), field(6), field(11)]
    const name = archive.toString('latin1', at + 110, at + 110 + nameSize - 1)
    const data = (at + 110 + nameSize + 3) & ~3
    if ((mode & 0o170000) === 0o100000 && wanted.test(name)) found.set(name, archive.subarray(data, data + size))
    at = (data + size + 3) & ~3
  }
  return found
}
