// Bundles everything, dependencies included, into dist/: the published package needs nothing else.
import { execFileSync } from 'node:child_process'
import { chmod, readFile, rm, writeFile } from 'node:fs/promises'
import { build } from 'esbuild'

process.chdir(new URL('..', import.meta.url).pathname)
const { version } = JSON.parse(await readFile('package.json', 'utf8'))

await rm('dist', { recursive: true, force: true })
const common = {
  outdir: 'dist',
  bundle: true,
  platform: 'node',
  target: 'node20',
  minifySyntax: true,
  legalComments: 'eof',
  define: { __VERSION__: JSON.stringify(version), 'import.meta.dirname': '__dirname' },
  plugins: [withoutNativeAddons()],
  logLevel: 'warning',
}
// The command is one file, which src/cli/compiled.ts loads: see there.
await build({
  ...common,
  entryPoints: { program: 'src/cli/start.ts' },
  format: 'cjs',
  outExtension: { '.js': '.cjs' },
  minifyWhitespace: true,
  supported: { 'dynamic-import': false },
})
await build({
  ...common,
  entryPoints: { nestvm: 'src/cli/main.ts', index: 'src/index.ts' },
  chunkNames: 'chunks/[name]-[hash]',
  splitting: true,
  format: 'esm',
  banner: { js: commonJsNames() },
})
await addShebang('dist/nestvm.js')
execFileSync('node_modules/.bin/tsc', ['-p', 'tsconfig.types.json'], { stdio: 'inherit' })

/** Bundled CommonJS packages (ssh2) call require and name their own file, which ES modules do not offer. */
function commonJsNames() {
  return [
    "import { createRequire as __createRequire } from 'node:module'",
    "import { fileURLToPath as __fileURLToPath } from 'node:url'",
    'const require = __createRequire(import.meta.url)',
    'const __filename = __fileURLToPath(import.meta.url)',
    "const __dirname = __fileURLToPath(new URL('.', import.meta.url))",
  ].join(';')
}

/** ssh2 tries its native addons first and falls back to JavaScript and node:crypto when they throw. */
function withoutNativeAddons() {
  return {
    name: 'without-native-addons',
    setup({ onResolve, onLoad }) {
      onResolve({ filter: /\.node$|^cpu-features$/ }, ({ path }) => ({ path, namespace: 'absent' }))
      onLoad({ filter: /.*/, namespace: 'absent' }, ({ path }) => ({
        contents: `throw new Error(${JSON.stringify(`${path} is not bundled`)})`,
      }))
    },
  }
}

async function addShebang(file) {
  await writeFile(file, `#!/usr/bin/env node\n${await readFile(file, 'utf8')}`)
  await chmod(file, 0o755)
}
