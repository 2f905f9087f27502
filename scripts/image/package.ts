import { execFileSync } from 'node:child_process'
import { createReadStream } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { createGunzip } from 'node:zlib'
import { readTar } from '../../src/image/tar/reader.ts'
import { file, type ImageFile, symlink } from './files.ts'

const home = 'usr/local/lib/node_modules/nestvm'

/** nestvm as `npm install --global` would put it there, of what `npm pack` packs; see `build`. */
export async function packageFiles(root: string, scratch: string): Promise<{ files: ImageFile[]; version: string }> {
  execFileSync('npm', ['pack', '--silent', '--ignore-scripts', '--pack-destination', scratch], {
    cwd: root,
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  const name = (await readdir(scratch)).find((entry) => entry.endsWith('.tgz'))
  const version = /^nestvm-(.*)\.tgz$/.exec(name ?? '')?.[1]
  if (!name || !version) throw new Error('npm pack has made no package')
  const files: ImageFile[] = []
  for await (const entry of readTar(createReadStream(join(scratch, name)).pipe(createGunzip()))) {
    if (entry.type !== 'file') continue
    const path = entry.path.replace(/^package/, home)
    files.push(file(path, await buffer(entry.data()), (entry.mode & 0o100) !== 0))
  }
  const program = files.find(({ path }) => path === `${home}/dist/nestvm.js`)
  if (!program) throw new Error('there is no dist/nestvm.js: npm run build')
  program.mode = 0o755
  return { files: [...files, symlink('usr/local/bin/nestvm', '../lib/node_modules/nestvm/dist/nestvm.js')], version }
}
