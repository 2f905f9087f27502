import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { basename, dirname, join } from 'node:path'
import { Script } from 'node:vm'
import { cachePaths } from '../store/paths.ts'
import { version } from '../store/version.ts'

/*
 * A command's start is mostly Node.js finding, reading and compiling modules. So all of nestvm is one file, which is
 * compiled once: what V8 made of it is kept among the caches, for each command by itself, since V8 compiles what is used.
 * Measured on a busy machine: `ls` 317 ms -> 230 ms, a warm `run` 1262 ms -> 1151 ms.
 */

/** Runs a CommonJS module, which has no import(). */
export function runCompiled(file: string, command = ''): void {
  const kept = keptAt(file, command)
  const cachedData = kept ? read(kept) : undefined
  // esbuild leaves nothing in the file that Latin-1 does not have, and reading that is a copy.
  const source = `(function (exports, require, module, __filename, __dirname) {${readFileSync(file, 'latin1')}\n})`
  const script = new Script(source, { filename: file, cachedData })
  const module = { exports: {} }
  if (kept && (!cachedData || script.cachedDataRejected)) process.once('exit', () => keep(kept, script))
  script.runInThisContext()(module.exports, createRequire(file), module, file, dirname(file))
}

/** V8 itself looks only at its own version and at the length of the source. */
function keptAt(file: string, command: string): string | undefined {
  try {
    const { size, mtimeMs } = statSync(file)
    const build = [version, process.version, process.arch, size, Math.round(mtimeMs)].join('_')
    return join(cachePaths().dir, 'compiled', `${build}.${/^[a-z]+$/.test(command) ? command : 'other'}`)
  } catch {
    return undefined
  }
}

function read(path: string): Buffer | undefined {
  try {
    return readFileSync(path)
  } catch {
    return undefined
  }
}

/** Whatever is in the way, the next command is only slower. */
function keep(path: string, script: Script): void {
  const dir = dirname(path)
  const draft = `${path}.${process.pid}.tmp`
  try {
    mkdirSync(dir, { recursive: true, mode: 0o700 })
    writeFileSync(draft, script.createCachedData(), { mode: 0o600 })
    renameSync(draft, path)
    const build = basename(path).replace(/\.[a-z]+$/, '')
    for (const name of readdirSync(dir)) if (!name.startsWith(build)) rmSync(join(dir, name), { force: true })
  } catch {
    removeDraft(draft)
  }
}

function removeDraft(path: string): void {
  try {
    rmSync(path)
  } catch {
    // There was no place for it.
  }
}
