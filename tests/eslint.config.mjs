/** What eslint finds in the dashboard's modules and their tests: scripts/lint_web. */

import js from '@eslint/js';
import globals from 'globals';

const STRICTER = {
  complexity: ['error', 10],
  curly: ['error', 'multi-line'],
  eqeqeq: 'error',
  'max-lines-per-function': ['error', 45],
  'no-implicit-coercion': ['error', { allow: ['!!'] }],
  'no-implied-eval': 'error',
  'no-nested-ternary': 'error',
  'no-ternary': 'error',
  'no-shadow': 'error',
  'no-var': 'error',
  'prefer-const': 'error',
  'prefer-template': 'off',
  'require-await': 'error',
  // Text must never become markup: what a meter or a server sends is text.
  'no-restricted-properties': [
    'error',
    { property: 'innerHTML' },
    { property: 'outerHTML' },
    { property: 'insertAdjacentHTML' },
  ],
};

export default [
  js.configs.recommended,
  {
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    rules: STRICTER,
  },
  { files: ['dsmr_rest/**/*.js'], languageOptions: { globals: globals.browser } },
  { files: ['tests/**/*.mjs'], languageOptions: { globals: globals.node } },
];
